package hbone_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/hbone"
	"github.com/ambit-mesh/ambit/identity/mtls"
	"github.com/ambit-mesh/ambit/internal/testkit/fakeca"
)

// In FIPS mode, and with a cipher suite that is not ours, the records are those of crypto/tls. The same promises hold.
func TestTheRecordsOfCryptoTLS(t *testing.T) {
	if strings.Contains(os.Getenv("GODEBUG"), "fips140=on") {
		t.Skip("this is the process that the test started")
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^(TestJoin|TestTunnel|TestEarlyData|TestTheFirstWords|TestARefusal|TestADeadTunnel|TestAnotherClient|TestWeSpeak)", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), "GODEBUG=fips140=on")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("with GODEBUG=fips140=on: %v\n%s", err, out)
	}
}

// openssl runs the program that speaks TLS for us, with the certificates of an identity.
func openssl(t *testing.T, ca *fakeca.CA, who string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl on this machine")
	}
	dir := t.TempDir()
	cert := ca.Issue(id(who)).TLS()
	var chain bytes.Buffer
	for _, der := range cert.Certificate {
		pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	key, err := pkcs8(cert)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"cert.pem": chain.Bytes(), "key.pem": key} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args = append(args, "-cert", filepath.Join(dir, "cert.pem"), "-cert_chain", filepath.Join(dir, "cert.pem"), "-key", filepath.Join(dir, "key.pem"), "-alpn", "h2", "-tls1_3")
	return exec.Command(path, args...)
}

func pkcs8(cert *tls.Certificate) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}

// pipes is a program's input and output as a connection.
type pipes struct {
	io.WriteCloser
	io.Reader
}

// speak starts a program and gives what it carries.
func speak(t *testing.T, cmd *exec.Cmd) *pipes {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stuck := time.AfterFunc(30*time.Second, func() { cmd.Process.Kill() })
	t.Cleanup(func() {
		in.Close()
		cmd.Process.Kill()
		cmd.Wait()
		stuck.Stop()
	})
	return &pipes{in, out}
}

func TestOpenSSLClient(t *testing.T) {
	m := onLoopback(t, echo)
	for _, suite := range []string{"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"} {
		t.Run(suite, func(t *testing.T) {
			p := speak(t, openssl(t, m.ca, "a", "s_client", "-connect", m.addr, "-ciphersuites", suite, "-quiet"))
			io.WriteString(p, http2.ClientPreface)
			r := &raw{t: t, Framer: http2.NewFramer(p, p)}
			exchange(t, r)
		})
	}
}

// exchange opens a tunnel that echoes, and sends through it what fills many records.
func exchange(t *testing.T, r *raw) {
	t.Helper()
	r.init()
	r.WriteSettings()
	r.headers(1, ":method", "CONNECT", ":authority", "10.0.0.9:80")
	sent, _ := random(60<<10, 7)
	go func() {
		for p := sent; len(p) > 0; p = p[min(len(p), 7000):] {
			r.WriteData(1, len(p) <= 7000, p[:min(len(p), 7000)])
		}
	}()
	var got []byte
	for {
		f, err := r.ReadFrame()
		if err != nil {
			t.Fatalf("after %d bytes: %v", len(got), err)
		}
		if d, ok := f.(*http2.DataFrame); ok {
			got = append(got, d.Data()...)
			if d.StreamEnded() {
				break
			}
		}
	}
	if !bytes.Equal(got, sent) {
		t.Errorf("%d bytes came back for %d, or others", len(got), len(sent))
	}
}

// A server of OpenSSL sends session tickets behind its handshake.
func TestOpenSSLServer(t *testing.T) {
	for _, suite := range []string{"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"} {
		t.Run(suite, func(t *testing.T) {
			ca := fakeca.New(t)
			l := listen(t)
			addr := l.Addr().String()
			l.Close()
			cmd := openssl(t, ca, "b", "s_server", "-accept", addr, "-ciphersuites", suite, "-verify", "3", "-quiet", "-naccept", "1")
			p := speak(t, cmd)
			d := &hbone.Dialer{Source: ca, Roots: ca}
			defer d.Close()
			d.DialTCP = func(ctx context.Context, h hbone.Hop) (net.Conn, error) {
				for { // until the program listens
					c, err := new(net.Dialer).DialContext(ctx, "tcp", h.Addr.String())
					if err == nil || ctx.Err() != nil {
						return c, err
					}
					time.Sleep(10 * time.Millisecond)
				}
			}
			served := make(chan struct{})
			go func() {
				defer close(served)
				if _, err := io.ReadFull(p, make([]byte, len(http2.ClientPreface))); err != nil {
					t.Errorf("preface: %v", err)
					return
				}
				r := &raw{t: t, Framer: http2.NewFramer(p, p)}
				r.init()
				r.WriteSettings()
				for {
					f, err := r.ReadFrame()
					if err != nil {
						t.Errorf("frame: %v", err)
						return
					}
					switch f := f.(type) {
					case *http2.MetaHeadersFrame:
						r.headers(f.StreamID, ":status", "200")
					case *http2.DataFrame:
						r.WriteData(f.StreamID, f.StreamEnded(), f.Data())
						if f.StreamEnded() {
							return
						}
					}
				}
			}()
			s, err := d.Dial(t.Context(), hop(addr), "10.0.0.9:80", nil)
			if err != nil {
				t.Fatal(err)
			}
			sent, want := random(60<<10, 8)
			go func() { s.Write(sent); s.CloseWrite() }()
			checkSum(t, s, want)
			s.Close()
			<-served
		})
	}
}

// What was sealed by somebody else, or not at all, ends the connection, and no byte of it gets through.
func TestRecordsThatWereChanged(t *testing.T) {
	var b backend
	m := onLoopback(t, b.serve)
	for _, name := range []string{"a bit is changed", "a record is sent twice", "a record is left out", "in the clear", "cut"} {
		t.Run(name, func(t *testing.T) {
			tcp, err := net.Dial("tcp", m.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer tcp.Close()
			evil := &between{Conn: tcp}
			conn := tls.Client(evil, mtls.Client(id("a"), m.ca, m.ca, mtls.OneOf(id("b"))))
			if err := conn.Handshake(); err != nil {
				t.Fatal(err)
			}
			r := &raw{t: t, conn: conn, Framer: http2.NewFramer(conn, conn)}
			r.init()
			io.WriteString(conn, http2.ClientPreface)
			r.WriteSettings()
			evil.change = name
			r.headers(1, ":method", "CONNECT", ":authority", "10.0.0.9:80")
			r.WriteData(1, true, []byte("evil"))
			if name == "cut" {
				tcp.(*net.TCPConn).CloseWrite()
			}
			conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			_, err = io.Copy(io.Discard, conn)
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				t.Error("the connection lives on")
			}
			t.Logf("the other end saw %v", err)
		})
	}
	if n := b.bytes.Load(); n != 0 {
		t.Errorf("backend saw %d bytes", n)
	}
}

// between is a place between client and server where records can be changed.
type between struct {
	net.Conn
	change string
	done   bool
}

func (b *between) Write(p []byte) (int, error) {
	if b.done || b.change == "" {
		return b.Conn.Write(p)
	}
	b.done = true
	switch b.change {
	case "a bit is changed":
		p = bytes.Clone(p)
		p[len(p)-20] ^= 4
	case "a record is sent twice":
		if _, err := b.Conn.Write(p); err != nil {
			return 0, err
		}
	case "a record is left out":
		return len(p), nil
	case "in the clear":
		return b.Conn.Write([]byte("\x17\x03\x03\x00\x19GET / HTTP/1.1 something\r"))
	case "cut":
		_, err := b.Conn.Write(p[:len(p)/2])
		return len(p), err
	}
	_, err := b.Conn.Write(p)
	return len(p), err
}
