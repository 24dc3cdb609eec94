package runtime

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// LogOptions say which part of a log to read, with kubectl's meaning.
type LogOptions struct {
	Tail       int       // the last so many lines; negative: all
	Since      time.Time // zero: all
	Follow     bool      // goes on until the container ends
	Timestamps bool
}

// ReadLog writes the text of a container's log to w.
func (r *Runtime) ReadLog(ctx context.Context, path string, o LogOptions, w io.Writer) error {
	r.mu.Lock()
	live := r.logs[path]
	r.mu.Unlock()
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	defer func() { _ = f.Close() }() // read only
	out := printer{o: o, w: w}
	if err := out.history(path+".1", f); err != nil {
		return err
	}
	if !o.Follow || live == nil {
		return nil
	}
	rest := bufio.NewReader(f)
	var part []byte
	for {
		changed, closed := live.state()
		for {
			line, err := rest.ReadBytes('\n')
			part = append(part, line...)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return fmt.Errorf("read the log: %w", err)
			}
			if err := out.print(part); err != nil {
				return err
			}
			part = nil
		}
		if next, err := reopened(path, f); err != nil {
			return err
		} else if next != nil {
			_ = f.Close() // read only
			f, rest = next, bufio.NewReader(next)
			continue
		}
		if closed {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// reopened is the log's new file if it was rotated since f was opened.
func reopened(path string, f *os.File) (*os.File, error) {
	was, err := f.Stat()
	if err != nil {
		return nil, err
	}
	is, err := os.Stat(path)
	if err != nil || os.SameFile(was, is) {
		return nil, nil // removed with its pod, or the same
	}
	return os.Open(path)
}

type printer struct {
	o LogOptions
	w io.Writer
}

// history prints what is there, leaving f at its end.
func (p printer) history(older string, f *os.File) error {
	var all []byte
	if b, err := os.ReadFile(older); err == nil {
		all = b
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	// A line still being written is left for following.
	if i := bytes.LastIndexByte(b, '\n') + 1; i < len(b) {
		if _, err := f.Seek(int64(i-len(b)), io.SeekCurrent); err != nil {
			return err
		}
		b = b[:i]
	}
	all = append(all, b...)
	start := 0
	if p.o.Tail >= 0 {
		start = len(all)
		for range p.o.Tail {
			if start == 0 {
				break
			}
			start = bytes.LastIndexByte(all[:start-1], '\n') + 1
		}
	}
	for line := range bytes.Lines(all[start:]) {
		if err := p.print(line); err != nil {
			return err
		}
	}
	return nil
}

func (p printer) print(line []byte) error {
	at, text, whole, ok := parseLine(line)
	if !ok || at.Before(p.o.Since) {
		return nil
	}
	var out []byte
	if p.o.Timestamps {
		out = fmt.Appendf(out, "%s ", at.Format(time.RFC3339Nano))
	}
	out = append(out, text...)
	if whole {
		out = append(out, '\n')
	}
	_, err := p.w.Write(out)
	return err
}

// parseLine reads one line of a log file.
func parseLine(line []byte) (at time.Time, text []byte, whole, ok bool) {
	line = bytes.TrimSuffix(line, []byte("\n"))
	parts := bytes.SplitN(line, []byte(" "), 4)
	if len(parts) != 4 {
		return at, nil, false, false
	}
	at, err := time.Parse(time.RFC3339Nano, string(parts[0]))
	return at, parts[3], string(parts[2]) == "F", err == nil
}
