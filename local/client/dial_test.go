package client

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestErrorsSayWhatToDo(t *testing.T) {
	c := New(t.TempDir())
	if _, err := c.Problems(t.Context()); err == nil || !strings.Contains(err.Error(), "start one with: ambit local up") {
		t.Errorf("nothing runs: %v", err)
	}
	if err := c.away(&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EACCES)}); !strings.Contains(err.Error(), "is another user's") {
		t.Errorf("not ours: %v", err)
	}
}

// TestStreams: each direction ends by itself, what came with the answer is kept, and a refusal is an error.
func TestStreams(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, APISocket))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		defer conn.Close()
		in := bufio.NewReader(conn)
		req, err := http.ReadRequest(in)
		if err != nil || req.Method != "POST" || req.URL.Path != "/ambit/v1/dial/ns/pod/80" || req.Header.Get("Upgrade") != "tcp" {
			done <- fmt.Errorf("%+v, %v", req, err)
			return
		}
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nearly ")
		said, err := io.ReadAll(in) // until the other direction ends
		fmt.Fprintf(conn, "heard %s", said)
		done <- err
	}()
	c := New(dir)
	s, err := c.DialPod(t.Context(), "ns", "pod", 80)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	fmt.Fprint(s, "hello")
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(s)
	if err != nil || string(got) != "early heard hello" {
		t.Errorf("%q, %v", got, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = http.ReadRequest(bufio.NewReader(conn))
		fmt.Fprint(conn, "HTTP/1.1 404 Not Found\r\nContent-Length: 11\r\n\r\nno such pod")
	}()
	if _, err := c.DialPod(t.Context(), "ns", "pod", 80); err == nil || !strings.Contains(err.Error(), "no such pod") {
		t.Errorf("a refusal: %v", err)
	}
}
