package hbone

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/hbone/internal/record"
	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/identity/mtls"
	"github.com/ambit-mesh/ambit/internal/testkit/fakeca"
)

// links gives both ends of a connection whose records are ours.
func links(t *testing.T) (client, server *records) {
	t.Helper()
	ca := fakeca.New(t)
	a := identity.ID{TrustDomain: fakeca.TrustDomain, Namespace: "a", ServiceAccount: "a"}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{near, far} {
		c.SetDeadline(time.Now().Add(30 * time.Second))
		t.Cleanup(func() { c.Close() })
	}
	type result struct {
		s   *shaken
		err error
	}
	done := make(chan result, 1)
	go func() {
		own := func(*tls.ClientHelloInfo) (identity.ID, error) { return a, nil }
		s, err := shake(context.Background(), far, new(buffers), mtls.Server(own, ca, ca, mtls.OneOf(a)), false)
		done <- result{s, err}
	}()
	c, err := shake(context.Background(), near, new(buffers), mtls.Client(a, ca, ca, mtls.OneOf(a)), true)
	if err != nil {
		t.Fatal(err)
	}
	s := <-done
	if s.err != nil {
		t.Fatal(s.err)
	}
	return c.link.(*records), s.s.link.(*records)
}

// Keys are changed in the middle of a transfer, by both ends, and nothing is lost or mixed up.
func TestKeysChangeUnderATransfer(t *testing.T) {
	client, server := links(t)
	client.w.Every, server.w.Every = 3, 5
	content := make([]byte, 3<<20)
	rand.NewChaCha8([32]byte{9}).Read(content)
	for _, way := range []struct{ from, to *records }{{client, server}, {server, client}, {client, server}} {
		sent := make(chan error, 1)
		go func() {
			r := rand.New(rand.NewPCG(1, 2))
			for p := content; len(p) > 0; {
				n := min(1+r.IntN(bulk.payload()), len(p))
				b := way.from.pool.take(classFor(n))
				size := b.fill(1, p[:n])
				err := way.from.send([]parcel{{b, size}})
				b.release()
				if err != nil {
					sent <- err
					return
				}
				p = p[n:]
			}
			sent <- nil
		}()
		var got []byte
		for len(got) < len(content) {
			b, pieces, err := way.to.receive()
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range pieces {
				got = append(got, p[9:]...) // behind a frame's header
			}
			b.release()
		}
		if err := <-sent; err != nil || !bytes.Equal(got, content) {
			t.Fatalf("%d bytes came, or others; %v", len(got), err)
		}
	}
	if err := client.goodbye(); err != nil {
		t.Fatal(err)
	}
	if b, _, err := server.receive(); err != io.EOF || b == nil {
		t.Errorf("behind the goodbye: %v", err)
	}
	client.conn.Close()
	if _, _, err := client.receive(); err == nil || err == io.EOF {
		t.Errorf("a closed connection: %v", err)
	}
	server.forget()
	if b := server.pool.take(small); server.send([]parcel{{b, 5}}) == nil {
		t.Error("sent without a key")
	}
}

// The end of a connection without the end of TLS is a break, wherever in a record it comes.
func TestACutIsNoEnd(t *testing.T) {
	for _, keep := range []int{0, 1, 4, 5, 6, 100} {
		client, server := links(t)
		rec := make([]byte, record.HeaderLen+200+record.TrailerLen)
		if err := client.w.Seal(rec); err != nil {
			t.Fatal(err)
		}
		if _, err := client.conn.Write(rec[:keep]); err != nil {
			t.Fatal(err)
		}
		client.conn.(*net.TCPConn).CloseWrite()
		if _, pieces, err := server.receive(); err != io.ErrUnexpectedEOF || len(pieces) > 0 {
			t.Errorf("cut after %d bytes: %q, %v", keep, pieces, err)
		}
	}
}
