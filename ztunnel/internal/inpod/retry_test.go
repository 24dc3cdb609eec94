package inpod

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// New pods of the mesh wait for the agent and then for the proxy: one that was away for long is found again at once.
func TestAgentThatWasAwayIsFoundAtOnce(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "z")
	var log bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	c := New(Config{Socket: socket, Log: slog.New(slog.NewTextHandler(&log, nil))})
	go func() { done <- c.Run(ctx) }()
	time.Sleep(2600 * time.Millisecond) // the fault's length
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Net: "unixpacket", Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	back := time.Now()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if took := time.Since(back); took > 2*time.Second {
		t.Errorf("the proxy came %v after the agent was back, want at once", took)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "\n"); n != 1 {
		t.Errorf("%d lines about one agent that is away:\n%s", n, &log)
	}
}
