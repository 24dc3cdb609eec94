package nc_test

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/samples/apps/nc"
)

// upper answers in capitals once it has read everything.
func upper(t *testing.T) (host, port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b, _ := io.ReadAll(c)
			_, _ = c.Write(bytes.ToUpper(b))
			c.Close()
		}
	}()
	host, port, err = net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return host, port
}

func TestBytesGoBothWaysAndEndsArePassedOn(t *testing.T) {
	host, port := upper(t)
	var out, diag bytes.Buffer
	if code := nc.Run(t.Context(), []string{"-w", "5", host, port}, strings.NewReader("hello\n"), &out, &diag); code != 0 || out.String() != "HELLO\n" {
		t.Errorf("exit code %d, %q, %s", code, out.String(), diag.String())
	}
}

func TestScan(t *testing.T) {
	host, port := upper(t)
	var out, diag bytes.Buffer
	if code := nc.Run(t.Context(), []string{"-zvw1", host, port}, strings.NewReader("not sent"), &out, &diag); code != 0 || !strings.Contains(diag.String(), "succeeded") {
		t.Errorf("open port: exit code %d, %s", code, diag.String())
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, closed, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if code := nc.Run(t.Context(), []string{"-z", host, closed}, nil, &out, &diag); code != 1 {
		t.Errorf("closed port: exit code %d", code)
	}
	for _, args := range [][]string{{}, {"host"}, {"-w"}, {"-w", "x", "h", "1"}, {"-e", "h", "1"}} {
		if code := nc.Run(t.Context(), args, nil, &out, &diag); code != 2 {
			t.Errorf("%q: exit code %d, want 2", args, code)
		}
	}
}
