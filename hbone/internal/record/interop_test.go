package record

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"testing"
	"time"
)

// exact gives crypto/tls no byte beyond the record that it reads.
type exact struct {
	net.Conn
	header []byte
	left   int
}

func (e *exact) Read(p []byte) (int, error) {
	if e.left == 0 {
		n, err := e.Conn.Read(p[:min(len(p), HeaderLen-len(e.header))])
		if e.header = append(e.header, p[:n]...); len(e.header) == HeaderLen {
			e.left, e.header = int(e.header[3])<<8|int(e.header[4]), e.header[:0]
		}
		return n, err
	}
	n, err := e.Conn.Read(p[:min(len(p), e.left)])
	e.left -= n
	return n, err
}

// The other end is crypto/tls, whose keys are changed again and again: by us, and by it because we ask for that.
func TestKeyUpdatesWithCryptoTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	base := &tls.Config{
		MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true, InsecureSkipVerify: true,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	}
	for _, client := range []bool{true, false} {
		t.Run(fmt.Sprintf("we are the client: %v", client), func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			near, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer near.Close()
			far, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer far.Close()
			var s Secrets
			ours := base.Clone()
			ours.KeyLogWriter = &s
			us, them := tls.Client(&exact{Conn: near}, ours), tls.Server(far, base)
			if !client {
				us, them = tls.Server(&exact{Conn: near}, ours), tls.Client(far, base)
			}
			done := make(chan error, 1)
			go func() { done <- echoAll(them) }()
			if err := us.Handshake(); err != nil {
				t.Fatal(err)
			}
			r, w, err := s.Take(us.ConnectionState(), client)
			if err != nil {
				t.Fatal(err)
			}
			near.SetDeadline(time.Now().Add(20 * time.Second))
			for i := range 50 {
				var out []byte
				switch i % 3 {
				case 1:
					out, err = w.Update(nil)
				case 2: // the same with a request
					if out, err = w.append(nil, typeHandshake, handshakeKeyUpdate, 0, 0, 1, 1); err == nil {
						err = w.update()
					}
				}
				if err != nil {
					t.Fatal(err)
				}
				want := bytes.Repeat([]byte{byte(i)}, 1+i*300)
				rec := append(append(make([]byte, HeaderLen), want...), make([]byte, TrailerLen)...)
				if err := w.Seal(rec); err != nil {
					t.Fatal(err)
				}
				if _, err := near.Write(append(out, rec...)); err != nil {
					t.Fatal(err)
				}
				var got []byte
				for len(got) < len(want) {
					got = append(got, next(t, near, r)...)
				}
				if !bytes.Equal(got, want) {
					t.Fatalf("message %d came back changed", i)
				}
			}
			bye, err := w.Goodbye(nil)
			if err != nil {
				t.Fatal(err)
			}
			near.Write(bye)
			if err := <-done; err != nil {
				t.Errorf("the other end: %v", err)
			}
			if _, err := r.Open(read(t, near)); err != io.EOF {
				t.Errorf("behind the other end's goodbye: %v", err)
			}
		})
	}
}

func echoAll(c *tls.Conn) error {
	buf := make([]byte, 4096)
	for {
		n, err := c.Read(buf)
		if err == io.EOF {
			return c.CloseWrite()
		}
		if err != nil {
			return err
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return err
		}
	}
}

func read(t *testing.T, c net.Conn) []byte {
	t.Helper()
	rec := make([]byte, MaxLen)
	if _, err := io.ReadFull(c, rec[:HeaderLen]); err != nil {
		t.Fatal(err)
	}
	n, err := Len(rec)
	if err == nil {
		_, err = io.ReadFull(c, rec[HeaderLen:n])
	}
	if err != nil {
		t.Fatal(err)
	}
	return rec[:n]
}

func next(t *testing.T, c net.Conn, r *Reader) []byte {
	t.Helper()
	for {
		data, err := r.Open(read(t, c))
		if err != nil {
			t.Fatal(err)
		}
		if len(data) > 0 {
			return data
		}
	}
}
