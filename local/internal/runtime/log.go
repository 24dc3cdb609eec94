package runtime

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// A log is a file of lines "<time> <stream> <F|P> <text>", as container runtimes write them; P is a part of a line.
// A full one is renamed with ".1" at its end, in place of the one before.
const (
	logLimit  = 10 << 20
	lineLimit = 16 << 10
)

type logFile struct {
	path    string
	onClose func()

	mu      sync.Mutex // guards below
	f       *os.File
	size    int64
	changed chan struct{} // closed at the next write or the end
	closed  bool
	writers []*lineWriter
}

func (r *Runtime) openLog(path string) (*logFile, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the log's directory: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	l := &logFile{path: path, f: f, size: st.Size(), changed: make(chan struct{})}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.logs[path] = l
	l.onClose = func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.logs[path] == l {
			delete(r.logs, path)
		}
	}
	return l, nil
}

func (l *logFile) stdout() io.Writer { return l.writer("stdout") }
func (l *logFile) stderr() io.Writer { return l.writer("stderr") }

func (l *logFile) writer(stream string) io.Writer {
	w := &lineWriter{log: l, stream: stream}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writers = append(l.writers, w)
	return w
}

// Close writes what is left of unfinished lines.
func (l *logFile) Close() error {
	defer l.onClose()
	var errs []error
	for _, w := range l.writers {
		errs = append(errs, w.flush())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	close(l.changed)
	return errors.Join(append(errs, l.f.Close())...)
}

func (l *logFile) line(stream, tag string, text []byte) error {
	line := fmt.Appendf(nil, "%s %s %s %s\n", time.Now().UTC().Format(time.RFC3339Nano), stream, tag, text)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return os.ErrClosed
	}
	if l.size+int64(len(line)) > logLimit {
		if err := l.rotateLocked(); err != nil {
			return err
		}
	}
	n, err := l.f.Write(line)
	l.size += int64(n)
	close(l.changed)
	l.changed = make(chan struct{})
	return err
}

func (l *logFile) rotateLocked() error {
	if err := os.Rename(l.path, l.path+".1"); err != nil {
		return fmt.Errorf("rotate the log: %w", err)
	}
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("rotate the log: %w", err)
	}
	old := l.f
	l.f, l.size = f, 0
	return old.Close()
}

// state is how to wait for more.
func (l *logFile) state() (changed <-chan struct{}, closed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed, l.closed
}

// lineWriter cuts one stream into lines.
type lineWriter struct {
	log    *logFile
	stream string

	mu  sync.Mutex // guards below
	buf []byte
}

func (w *lineWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf = append(w.buf, b...)
	for {
		i := bytes.IndexByte(w.buf, '\n')
		tag, end, next := "F", i, i+1
		switch {
		case i >= 0 && i <= lineLimit:
		case len(w.buf) > lineLimit:
			tag, end, next = "P", lineLimit, lineLimit
		default:
			return len(b), nil
		}
		if err := w.log.line(w.stream, tag, w.buf[:end]); err != nil {
			return 0, err
		}
		w.buf = w.buf[next:]
	}
}

func (w *lineWriter) flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.buf) == 0 {
		return nil
	}
	err := w.log.line(w.stream, "F", w.buf)
	w.buf = nil
	return err
}
