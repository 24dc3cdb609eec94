package hbone_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/ambit-mesh/ambit/hbone"
)

// TestAKilledProxyLooksBroken: when a proxy is killed in the middle of a transfer, the kernel closes its sockets. The
// application must not take that for the end.
func TestAKilledProxyLooksBroken(t *testing.T) {
	const child = "AMBIT_KILLED_PROXY"
	if addr := os.Getenv(child); addr != "" { // we are that proxy
		var ends [2]net.Conn
		for i := range ends {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			ends[i] = c
		}
		hbone.Join(t.Context(), ends[0], ends[1])
		return
	}
	l := listen(t)
	defer l.Close()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestAKilledProxyLooksBroken$")
	cmd.Env = append(os.Environ(), child+"="+l.Addr().String())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var ends [2]net.Conn
	for i := range ends {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		ends[i] = c
	}
	if _, err := io.WriteString(ends[0], "half a transfer"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len("half a transfer"))
	if _, err := io.ReadFull(ends[1], got); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	for i, c := range ends {
		if _, err := c.Read(got); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("end %d of a killed proxy gives %v, want a reset", i, err)
		}
	}
}

// What was written before a proper end arrives, however late it is read.
func TestAProperEndLosesNothing(t *testing.T) {
	l := listen(t)
	defer l.Close()
	pair := func() (ours, theirs net.Conn) {
		ours, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		theirs, err = l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return ours, theirs
	}
	a, app := pair()
	b, server := pair()
	defer app.Close()
	defer server.Close()
	done := make(chan hbone.Result, 1)
	go func() { done <- hbone.Join(t.Context(), a, b) }()
	data, sum := random(2<<20, 7) // more than the sockets' first buffers hold
	if err := app.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = server.Write(data) // what arrives is compared
		server.Close()
	}()
	buf := make([]byte, 1<<20)
	n, err := io.ReadFull(app, buf)
	if err != nil {
		t.Fatal(err)
	}
	// The rest fits into buffers: Join is over before it is read.
	if res := <-done; res.Err != nil {
		t.Fatal(res.Err)
	}
	checkSum(t, io.MultiReader(bytes.NewReader(buf[:n]), app), sum)
}
