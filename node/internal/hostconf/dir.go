package hostconf

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// maxConf bounds a configuration file.
const maxConf = 1 << 20

// ours begins the name of every file that is not whole yet.
const ours = ".ambit-"

// dir is a directory of the host. No name, and no link in it, leads out of it: the files are others', and the agent is root.
type dir struct{ *os.Root }

func openDir(path string) (dir, error) {
	r, err := os.OpenRoot(path)
	return dir{r}, err
}

// open opens a regular file; what is none must not make the agent wait.
func (d dir) open(name string) (*os.File, fs.FileInfo, error) {
	f, err := d.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is no file", f.Name())
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, st, nil
}

// read reads a small file, with who may see it.
func (d dir) read(name string) ([]byte, fs.FileMode, error) {
	f, st, err := d.open(name)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxConf+1))
	if err == nil && len(b) > maxConf {
		err = fmt.Errorf("%s is longer than %d bytes", f.Name(), maxConf)
	}
	return b, st.Mode().Perm(), err
}

// replace puts a whole file in place at once, and lastingly; a failure leaves the old one and no other.
func (d dir) replace(name string, data io.Reader, mode fs.FileMode) (err error) {
	var random [8]byte
	if _, err := rand.Read(random[:]); err != nil {
		return err
	}
	temp := ours + hex.EncodeToString(random[:])
	f, err := d.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Remove(temp))
		}
	}()
	_, err = io.Copy(f, data)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := d.Rename(temp, name); err != nil {
		return err
	}
	return d.sync()
}

// sync makes the directory itself last.
func (d dir) sync() error {
	f, err := d.Open(".")
	if err != nil {
		return err
	}
	err = f.Sync()
	if errors.Is(err, unix.EINVAL) { // a file system that has nothing to write
		err = nil
	}
	return errors.Join(err, f.Close())
}

// same reports whether a file holds these bytes.
func (d dir) same(name string, want []byte, mode fs.FileMode) bool {
	have, m, err := d.read(name)
	return err == nil && m == mode && bytes.Equal(have, want)
}

// gone removes a file that may not be there.
func (d dir) gone(name string) error {
	if err := d.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// sweep removes what an agent left that was killed while it wrote: such files could fill a disk.
func (d dir) sweep() error {
	names, err := d.names()
	for _, n := range names {
		if strings.HasPrefix(n, ours) {
			err = errors.Join(err, d.gone(n))
		}
	}
	return err
}

// names are those of the directory, in order.
func (d dir) names() ([]string, error) {
	entries, err := fs.ReadDir(d.FS(), ".")
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all, err
}
