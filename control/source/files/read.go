package files

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// readTimeout is how long a file system may take for one file before the others go on without it.
const readTimeout = 10 * time.Second

// Where a file system hangs, the next files wait less for it, and after so many not at all.
const (
	hangingTimeout = 200 * time.Millisecond
	mostHanging    = 16
)

// How soon a file that could not be read is tried again: twice as late each time.
const (
	retryFirst = time.Second
	retryLast  = 15 * time.Second
)

// readError is trouble with reading, which may pass by itself, unlike trouble with what is written.
type readError struct{ error }

func (e readError) Unwrap() error { return e.error }

// readFile gives a file's bytes, nil when there is no file. It never waits for a writer, as a named pipe would make it.
func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, nil
	case !info.Mode().IsRegular():
		return nil, errors.New("is not a regular file")
	case info.Size() > kinds.MaxBytes:
		return nil, fmt.Errorf("has %d bytes, more than %d; split the file", info.Size(), kinds.MaxBytes)
	}
	data, err := io.ReadAll(io.LimitReader(f, kinds.MaxBytes+1)) // it may have grown
	if data == nil && err == nil {
		data = []byte{}
	}
	return data, err
}

// patience is how long a read may take; an error says that it is not even tried.
func (s *Source) patience(name string) (time.Duration, error) {
	s.hangMu.Lock()
	defer s.hangMu.Unlock()
	if at, hangs := s.hanging[name]; hangs {
		select {
		case <-at:
			delete(s.hanging, name)
		default:
			return 0, readError{fmt.Errorf("%s: the file system does not answer", name)}
		}
	}
	switch n := len(s.hanging); {
	case n >= mostHanging:
		return 0, readError{fmt.Errorf("%s: not read, the file system does not answer for others", name)}
	case n > 0:
		return hangingTimeout, nil
	}
	return readTimeout, nil
}

// read reads a file below the directory, and gives up when that takes too long. What hangs in the file system is left
// there; it ends when the file system answers.
func (s *Source) read(name string) ([]byte, error) {
	wait, err := s.patience(name)
	if err != nil {
		return nil, err
	}
	type result struct {
		data []byte
		err  error
	}
	got, over := make(chan result, 1), make(chan struct{})
	go func() {
		data, err := s.conf.Read(filepath.Join(s.dir, name))
		got <- result{data, err}
		close(over)
	}()
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case r := <-got:
		if r.err != nil {
			return nil, readError{fmt.Errorf("%s: %w", name, r.err)}
		}
		return r.data, nil
	case <-t.C:
		s.hangMu.Lock()
		defer s.hangMu.Unlock()
		s.hanging[name] = over
		return nil, readError{fmt.Errorf("%s: the file system does not answer", name)}
	}
}
