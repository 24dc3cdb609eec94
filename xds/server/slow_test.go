package server

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"

	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/internal/testkit/fakeca"
	"github.com/ambit-mesh/ambit/internal/testkit/memnet"
)

// held is the memory in use, in bytes.
func held() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// XD-07: a subscriber that never reads costs at most 8 MiB however much changes, and is dropped after 60 s; others do
// not notice.
func TestXD07NeverReads(t *testing.T) {
	in(t, func(t *testing.T, p *plane) {
		put := func(version string) { // 3 MB
			for i := range 3000 {
				r := thing(fmt.Sprint(i), version)
				r.Body.Value = bytes.Repeat([]byte(version), 1000)
				p.things.Put(r)
			}
		}
		put("a")
		before := held()
		slow := p.call("a")
		defer slow.end()
		slow.subscribe("a", "thing")
		synctest.Wait()
		other := p.call("b")
		defer other.end()
		other.subscribe("b", "policy")
		other.ack(other.hear("policy 1"))
		for round := range 20 {
			put(string(rune('b' + round)))
		}
		p.policies.Put(thing("deny", "1"))
		other.ack(other.hear("policy 2 deny@1"))
		grown := held() - before
		t.Logf("a subscriber that never reads costs %d KiB", grown>>10)
		if grown > 8<<20 {
			t.Errorf("a subscriber that never reads costs %d KiB", grown>>10)
		}
		synctest.Wait()
		if n := len(p.xds.Subscribers()); n != 2 {
			t.Fatalf("%d subscribers, want 2", n)
		}
		time.Sleep(61 * time.Second)
		synctest.Wait()
		if subs := p.xds.Subscribers(); len(subs) != 1 || subs[0].Caller != "b" {
			t.Errorf("after 61 s: %d subscribers, want the other alone", len(subs))
		}
		p.policies.Put(thing("deny", "2"))
		other.hear("policy 3 deny@2")
	})
}

// A subscriber that reads but does not answer is dropped as well.
func TestXD07NeverAnswers(t *testing.T) {
	in(t, func(t *testing.T, p *plane) {
		c := p.call("a")
		defer c.end()
		c.subscribe("a", "thing")
		c.hear("thing 1")
		begin := time.Now()
		c.ended(codes.DeadlineExceeded)
		if d := time.Since(begin); d < 50*time.Second || d > time.Minute {
			t.Errorf("dropped after %v, want at most 60 s, and no hurry", d)
		}
	})
}

// XD-13: strangers who send garbage, or half a handshake, cost at most 64 KiB each, and are gone after 10 s.
func TestXD13Strangers(t *testing.T) {
	const strangers = 200
	synctest.Test(t, func(t *testing.T) {
		cert := fakeca.New(t).Issue(identity.ID{TrustDomain: "cluster.local", Namespace: "istio-system", ServiceAccount: "istiod"}).TLS()
		l := memnet.Listen("10.0.0.1:15012")
		gs := grpc.NewServer(append(Options(), grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{*cert}, MinVersion: tls.VersionTLS13})))...)
		done := make(chan error, 1)
		go func() { done <- gs.Serve(l) }()
		connect := func(say []byte) net.Conn {
			c, err := l.Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Write(say); err != nil {
				t.Fatal(err)
			}
			return c
		}
		before := held()
		// The head of a handshake record of 16 KiB, and most of it.
		half := append([]byte{22, 3, 1, 0x3f, 0xff, 1, 0, 0x3f, 0xfb}, make([]byte, 15000)...)
		var conns []net.Conn
		for range strangers {
			conns = append(conns, connect(half))
		}
		synctest.Wait()
		if each := (held() - before) / strangers; each > 64<<10 {
			t.Errorf("half a handshake costs %d bytes", each)
		} else {
			t.Logf("half a handshake costs %d bytes", each)
		}
		for _, say := range [][]byte{
			[]byte("GET / HTTP/1.1\r\n\r\n"), []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), bytes.Repeat([]byte{0xff}, 60<<10), {22, 3, 1, 0xff, 0xff},
		} {
			conns = append(conns, connect(say))
		}
		time.Sleep(handshakeTimeout + time.Second)
		for _, c := range conns {
			if err := c.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 100)
			n, err := c.Read(buf)
			for err == nil {
				n, err = c.Read(buf)
			}
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				t.Fatalf("a stranger is still connected after %v (%d bytes)", handshakeTimeout, n)
			}
			c.Close()
		}
		gs.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
