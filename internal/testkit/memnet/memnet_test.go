package memnet

import (
	"context"
	"errors"
	"io"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestHalfCloseKeepsTheOtherDirection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := Listen("10.0.0.1:80")
		defer l.Close()
		a, err := l.Dial(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		b, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			io.WriteString(a, "ping")
			a.(*Conn).CloseWrite()
		}()
		if got, err := io.ReadAll(b); string(got) != "ping" || err != nil {
			t.Errorf("read %q, %v; want ping", got, err)
		}
		io.WriteString(b, "pong")
		b.Close()
		if got, err := io.ReadAll(a); string(got) != "pong" || err != nil {
			t.Errorf("read %q, %v; want pong", got, err)
		}
		l.Close()
		if _, err := l.Dial(context.Background()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial after Close: %v, want refused", err)
		}
	})
}

func TestLingerZeroResets(t *testing.T) {
	a, b := Pipe()
	io.WriteString(a, "lost")
	a.SetLinger(0)
	a.Close()
	if _, err := b.Read(make([]byte, 9)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read: %v, want reset", err)
	}
	if _, err := b.Write([]byte("x")); err == nil {
		t.Error("write after a reset succeeded")
	}
}

func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := Pipe()
		begin := time.Now()
		a.SetReadDeadline(begin.Add(time.Minute))
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begin) != time.Minute {
			t.Errorf("read: %v after %v", err, time.Since(begin))
		}
		a.SetWriteDeadline(begin.Add(2 * time.Minute))
		if n, err := a.Write(make([]byte, Buffer+1)); n != Buffer || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("write: %d, %v", n, err)
		}
	})
}
