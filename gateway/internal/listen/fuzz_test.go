package listen

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// FuzzFrames: we find the frames that the framer finds, however the bytes are cut.
func FuzzFrames(f *testing.F) {
	var b bytes.Buffer
	fr := http2.NewFramer(&b, nil)
	fr.WriteSettings()                        //nolint:errcheck // a buffer takes everything
	fr.WritePing(false, [8]byte{})            //nolint:errcheck // as above
	fr.WriteData(1, true, []byte("x"))        //nolint:errcheck // as above
	fr.WriteRSTStream(1, http2.ErrCodeCancel) //nolint:errcheck // as above
	f.Add(b.Bytes(), uint8(3))
	f.Fuzz(func(t *testing.T, in []byte, cut uint8) {
		if len(in) > 1<<16 {
			return
		}
		type head struct {
			n           int
			kind, flags byte
		}
		var got []head
		var scan frames
		for rest := in; len(rest) > 0; {
			n := min(len(rest), int(cut)+1)
			scan.see(rest[:n], func(n int, kind, flags byte) { got = append(got, head{n, kind, flags}) })
			rest = rest[n:]
		}
		r := bytes.NewReader(in)
		for i := 0; ; i++ {
			h, err := http2.ReadFrameHeader(r)
			if err != nil {
				if len(got) != i {
					t.Fatalf("we found %d frames, the framer %d", len(got), i)
				}
				return
			}
			if want := (head{int(h.Length), byte(h.Type), byte(h.Flags)}); i >= len(got) || got[i] != want {
				t.Fatalf("frame %d: we found %v, want %v", i, got, want)
			}
			if _, err := r.Seek(int64(h.Length), io.SeekCurrent); err != nil || int64(h.Length) > 0 && r.Len() == 0 && scan.skip > 0 {
				return
			}
		}
	})
}

// FuzzHello: whatever a client sends first, what was read of it is given back whole.
func FuzzHello(f *testing.F) {
	client, server := net.Pipe()
	go tls.Client(client, &tls.Config{ServerName: "shop.test"}).Handshake() //nolint:errcheck // only its first message is wanted
	server.SetReadDeadline(time.Now().Add(time.Second))                     //nolint:errcheck // a pipe has deadlines
	first := make([]byte, 4096)
	n, _ := server.Read(first)
	client.Close()
	server.Close()
	f.Add(first[:n])
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		name, taken, err := readHello(context.Background(), &bytesConn{r: bytes.NewReader(in)})
		if err == nil && (!bytes.HasPrefix(in, taken) || len(taken) > maxHello) {
			t.Fatalf("name %q: %d bytes taken of %d", name, len(taken), len(in))
		}
	})
}

// bytesConn is a client that has said all.
type bytesConn struct {
	net.Conn
	r io.Reader
}

func (c *bytesConn) Read(p []byte) (int, error)  { return c.r.Read(p) }
func (c *bytesConn) Write(p []byte) (int, error) { return len(p), nil }
func (c *bytesConn) Close() error                { return nil }

// FuzzRevoked: a list of revoked certificates is foreign bytes as well.
func FuzzRevoked(f *testing.F) {
	f.Add([]byte("-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n"), []byte("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, list, ca []byte) {
		if gone, err := revoked(list, ca); err == nil && len(gone) == 0 {
			t.Fatal("a list of nothing was taken")
		}
	})
}
