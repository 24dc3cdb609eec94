package runtime

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
)

func TestTailAndRotation(t *testing.T) {
	r := New(Config{State: t.TempDir()})
	path := filepath.Join(t.TempDir(), "c", "0.log")
	l, err := r.openLog(path)
	if err != nil {
		t.Fatal(err)
	}
	w := l.stdout()
	long := strings.Repeat("x", 40<<10)
	for _, s := range []string{"one\ntw", "o\n", long + "\n", "unfinished"} {
		if n, err := w.Write([]byte(s)); err != nil || n != len(s) {
			t.Fatalf("Write = %d, %v", n, err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	read := func(tail int) string {
		var b bytes.Buffer
		if err := r.ReadLog(t.Context(), path, LogOptions{Tail: tail}, &b); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	if got, want := read(-1), "one\ntwo\n"+long+"\nunfinished\n"; got != want {
		t.Errorf("the log has %d bytes, want %d", len(got), len(want))
	}
	if got := read(1); got != "unfinished\n" {
		t.Errorf("last line %q", got)
	}
	if got := read(0); got != "" {
		t.Errorf("no lines asked, got %q", got)
	}

	if l, err = r.openLog(path); err != nil {
		t.Fatal(err)
	}
	l.size = logLimit // as if it were full
	if _, err := l.stdout().Write([]byte("after\n")); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got := read(2); got != "unfinished\nafter\n" {
		t.Errorf("lines over a rotation %q", got)
	}
}

func FuzzLogLine(f *testing.F) {
	f.Add([]byte("2026-01-02T03:04:05.6Z stdout F hello\n"))
	f.Add([]byte("   "))
	f.Fuzz(func(t *testing.T, line []byte) {
		if _, text, _, ok := parseLine(line); ok && len(text) > len(line) {
			t.Errorf("parseLine made text of %q", line)
		}
	})
}
