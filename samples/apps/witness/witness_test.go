package witness_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/samples/apps/witness"
)

func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestWitnessSaysWhatReachedIt(t *testing.T) {
	web, echo, greet := free(t), free(t), free(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- witness.Run(ctx, "me", []string{"-http", web, "-echo", echo, "-greet", greet, "-udp", echo})
	}()
	talk := func(network, address, say string, want string) {
		t.Helper()
		var c net.Conn
		var err error
		for range 200 {
			if c, err = net.Dial(network, address); err == nil {
				break
			}
			time.Sleep(10 * time.Millisecond) // it has said nothing yet
		}
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, say); err != nil {
			t.Fatal(err)
		}
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.CloseWrite()
		}
		b := make([]byte, len(want))
		if _, err := io.ReadFull(c, b); err != nil || string(b) != want {
			t.Errorf("%s %s says %q, %v; want %q", network, address, b, err, want)
		}
	}
	talk("tcp", echo, "hello", "hello")
	talk("tcp", greet, "hello", "220 me\nhello")
	talk("udp", echo, "hello", "hello")
	status := func() int {
		t.Helper()
		r, err := http.Get("http://" + web + "/health")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		return r.StatusCode
	}
	if s := status(); s != 200 {
		t.Errorf("healthy is %d", s)
	}
	r, err := http.Post("http://"+web+"/health?ok=false", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if s := status(); s != 503 {
		t.Errorf("sick is %d", s)
	}
	r, err = http.Post("http://"+web+"/grpc.health.v1.Health/Check", "application/grpc", nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r.Body)
	r.Body.Close()
	if !bytes.Equal(b, []byte{0, 0, 0, 0, 2, 8, 2}) || r.Trailer.Get("Grpc-Status") != "0" || err != nil {
		t.Errorf("gRPC's check says %v, trailers %v, %v", b, r.Trailer, err)
	}
	if r, err = http.Get("http://" + web + "/seen"); err != nil {
		t.Fatal(err)
	}
	var seen map[string]map[string]witness.Seen
	err = json.NewDecoder(r.Body).Decode(&seen)
	r.Body.Close()
	_, port, _ := net.SplitHostPort(echo)
	if want := (witness.Seen{Connections: 2, Bytes: 10}); err != nil || seen[port]["127.0.0.1"] != want {
		t.Errorf("seen %v, %v; want %v of port %s", seen, err, want, port)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("its end: %v", err)
	}
}
