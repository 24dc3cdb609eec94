package cli

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"time"

	"github.com/ambit-mesh/ambit/cli/internal/redact"
)

// archive is a tar.gz of texts without secrets.
type archive struct {
	gz    *gzip.Writer
	tar   *tar.Writer
	now   time.Time
	files int
	bytes int64
}

func newArchive(w io.Writer) *archive {
	gz := gzip.NewWriter(w)
	return &archive{gz: gz, tar: tar.NewWriter(gz), now: time.Now()}
}

// add puts a text into the archive, its secrets taken out.
func (a *archive) add(name string, text []byte) error {
	text = redact.Text(text)
	if err := a.tar.WriteHeader(&tar.Header{Name: "bug-report/" + name, Mode: 0o600, Size: int64(len(text)), ModTime: a.now}); err != nil {
		return err
	}
	a.files++
	a.bytes += int64(len(text))
	_, err := a.tar.Write(text)
	return err
}

func (a *archive) close() error { return errors.Join(a.tar.Close(), a.gz.Close()) }

func joined(errs ...error) error { return errors.Join(errs...) }
