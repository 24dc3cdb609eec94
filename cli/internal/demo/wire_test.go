package demo

import (
	"crypto/tls"
	"net"
	"net/netip"
	"testing"

	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/internal/testkit/fakeca"
	"github.com/ambit-mesh/ambit/local/client"
)

// recordHello runs a real handshake of at most the given version and gives the server's first flight.
func recordHello(t *testing.T, version uint16) []byte {
	t.Helper()
	cert := fakeca.New(t).Issue(identity.ID{TrustDomain: "cluster.local", Namespace: "n", ServiceAccount: "s"}).TLS()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	go func() {
		_ = tls.Client(a, &tls.Config{InsecureSkipVerify: true, MinVersion: version, MaxVersion: version}).Handshake() // ends with the pipe
	}()
	r := &recorder{Conn: b}
	if err := tls.Server(r, &tls.Config{Certificates: []tls.Certificate{*cert}, MinVersion: version}).Handshake(); err != nil && len(r.first) == 0 {
		t.Fatal(err)
	}
	return r.first
}

type recorder struct {
	net.Conn
	first []byte
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.first == nil {
		r.first = append([]byte(nil), p...)
	}
	if n, err := r.Conn.Write(p); err != nil {
		return n, err
	}
	return len(p), nil
}

func TestServerHelloTellsTheVersion(t *testing.T) {
	for _, v := range []uint16{tls.VersionTLS13, tls.VersionTLS12} {
		if got := serverHello(recordHello(t, v)); got != v {
			t.Errorf("version %#x, want %#x", got, v)
		}
	}
	if got := serverHello([]byte("HTTP/1.1 200 OK\r\n\r\nsome longer text that is no hello at all")); got != 0 {
		t.Errorf("plain text is a hello of %#x", got)
	}
}

func FuzzServerHello(f *testing.F) {
	f.Add([]byte{22, 3, 3, 0, 90, 2, 0, 0, 86, 3, 3})
	f.Fuzz(func(_ *testing.T, b []byte) {
		serverHello(b)
		httpLine(b)
	})
}

func TestWireSortsSegments(t *testing.T) {
	pod, other := netip.MustParseAddr("10.244.1.2"), netip.MustParseAddr("10.244.0.9")
	x := &wire{tls: map[netip.AddrPort]bool{}}
	see := func(from, to netip.Addr, port uint16, payload string) {
		x.take(client.Segment{From: netip.AddrPortFrom(from, 40000), To: netip.AddrPortFrom(to, port), Payload: []byte(payload)}, map[netip.Addr]bool{pod: true})
	}
	see(other, pod, 9080, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	see(pod, other, 15008, "\x16\x03\x01")
	see(pod, other, 9080, "\x00\x01")
	see(other, other, 80, "GET / HTTP/1.1\r\n") // not of the application
	if len(x.http) != 1 || x.plain != 1 || len(x.tls) != 1 || x.segments != 3 {
		t.Errorf("http %v, plain %d, tls %v, segments %d", x.http, x.plain, x.tls, x.segments)
	}
}
