package wire_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/local/internal/network/wire"
)

// recorded keeps what was read from a connection.
type recorded struct {
	net.Conn
	in *bytes.Buffer
}

func (r recorded) Read(b []byte) (int, error) {
	n, err := r.Conn.Read(b)
	r.in.Write(b[:n])
	return n, err
}

// handshake is what a server of a version sends.
func handshake(t testing.TB, version uint16) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)},
		&x509.Certificate{SerialNumber: big.NewInt(1)}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	conf := &tls.Config{MaxVersion: version, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	served := make(chan error, 1)
	go func() { served <- tls.Server(b, conf).Handshake() }()
	var in bytes.Buffer
	client := tls.Client(recorded{a, &in}, &tls.Config{InsecureSkipVerify: true})
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	// In TLS 1.3 the server still has to read what the client sent last; it has all been written by now.
	b.Close()
	<-served
	return in.Bytes()
}

func TestVersionsOfRealHandshakes(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		sent := handshake(t, version)
		if got, ok := wire.ServerVersion(sent); !ok || got != version {
			t.Errorf("a server of %#x is read as %#x, %v", version, got, ok)
		}
		for cut := 8; cut <= len(sent); cut++ {
			if got := wire.Classify(sent[:cut]); got != wire.TLS {
				t.Fatalf("the first %d bytes are %v, want TLS", cut, got)
			}
		}
	}
}

func TestClassify(t *testing.T) {
	for payload, want := range map[string]wire.Content{
		"":                               wire.Unknown,
		"GET /productpage HTTP/1.1\r\n":  wire.HTTP,
		"HTTP/1.1 200 OK\r\n":            wire.HTTP,
		"PRI * HTTP/2.0\r\n\r\nSM":       wire.HTTP,
		"\x17\x03\x03\x00\x02ab":         wire.TLS,
		"\x17\x03\x03\x00\x02abGET / HT": wire.Unknown,
		"\x17\x03\x03\xff\xff":           wire.Unknown,
		"<title>Simple Bookstore App":    wire.Unknown,
	} {
		if got := wire.Classify([]byte(payload)); got != want {
			t.Errorf("Classify(%q) = %v, want %v", payload, got, want)
		}
	}
}

func FuzzTLS(f *testing.F) {
	f.Add(handshake(f, tls.VersionTLS13))
	f.Add(handshake(f, tls.VersionTLS12))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, ok := wire.ServerVersion(b); ok && wire.Classify(b) == wire.HTTP {
			t.Errorf("%q is a ServerHello and HTTP", b)
		}
	})
}
