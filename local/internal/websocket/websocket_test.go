package websocket

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/internal/testkit/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// client opens a websocket to a handler, and gives the connection after the handshake.
func client(t *testing.T, h http.HandlerFunc, protocols string) (net.Conn, *bufio.Reader, *http.Response) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: "+protocols+"\r\n\r\n")
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c, r, resp
}

// masked is a client's frame.
func masked(first byte, payload string) []byte {
	b := []byte{first, 0x80 | byte(len(payload)), 1, 2, 3, 4}
	for i := range len(payload) {
		b = append(b, payload[i]^b[2+i%4])
	}
	return b
}

func TestMessagesComeWholeAndPingsAreAnswered(t *testing.T) {
	got := make(chan string, 4)
	c, r, resp := client(t, func(w http.ResponseWriter, req *http.Request) {
		ws, err := Accept(w, req, []string{"v5.channel.k8s.io", "v4.channel.k8s.io"})
		if err != nil {
			got <- err.Error()
			return
		}
		defer ws.Cut()
		for {
			m, err := ws.Read()
			if err != nil {
				got <- map[bool]string{true: "closed", false: err.Error()}[errors.Is(err, io.EOF)]
				return
			}
			got <- string(m)
			if err := ws.Write(1, bytes.Repeat([]byte("x"), 200)); err != nil {
				got <- err.Error()
			}
		}
	}, "unknown, v4.channel.k8s.io")
	// The proof is the one that RFC 6455, 1.3 computes for this key.
	if resp.StatusCode != 101 || resp.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" || resp.Header.Get("Sec-WebSocket-Protocol") != "v4.channel.k8s.io" {
		t.Fatalf("%v", resp)
	}
	for _, f := range [][]byte{masked(0x02, "\x00he"), masked(0x89, "ping"), masked(0x80, "llo")} {
		if _, err := c.Write(f); err != nil {
			t.Fatal(err)
		}
	}
	if m := <-got; m != "\x00hello" {
		t.Errorf("message %q", m)
	}
	want := append([]byte{0x8a, 4}, "ping"...)
	want = append(append(want, 0x82, 126, 0, 201, 1), bytes.Repeat([]byte("x"), 200)...)
	have := make([]byte, len(want))
	if _, err := io.ReadFull(r, have); err != nil || !bytes.Equal(have, want) {
		t.Errorf("answer %q, %v", have, err)
	}
	if _, err := c.Write(masked(0x88, "\x03\xe8")); err != nil {
		t.Fatal(err)
	}
	if m := <-got; m != "closed" {
		t.Errorf("at the end: %s", m)
	}
}

func TestWhatIsNoWebsocketIsRefused(t *testing.T) {
	refusal := make(chan error, 1)
	h := func(w http.ResponseWriter, r *http.Request) {
		_, err := Accept(w, r, []string{"v5.channel.k8s.io"})
		refusal <- err
		http.Error(w, "no", http.StatusBadRequest)
	}
	client(t, h, "v1.other")
	if err := <-refusal; err == nil || !strings.Contains(err.Error(), "v1.other") {
		t.Errorf("another protocol: %v", err)
	}
	w := httptest.NewRecorder()
	h(w, httptest.NewRequest(http.MethodPost, "/", nil))
	if err := <-refusal; err == nil {
		t.Error("no upgrade: accepted")
	}
}

func TestFramesThatBreakTheRules(t *testing.T) {
	for name, b := range map[string][]byte{
		"not masked": {0x82, 1, 'x'}, "extensions": masked(0xc2, "x"), "unknown kind": masked(0x83, "x"),
		"a ping in parts": masked(0x09, "x"), "a large ping": {0x89, 0x80 | 126, 0, 200, 1, 2, 3, 4},
		"huge": {0x82, 0x80 | 127, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4}, "cut": {0x82, 0x80 | 5, 1, 2, 3, 4, 'x'},
	} {
		if f, err := readFrame(bufio.NewReader(bytes.NewReader(b))); err == nil {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add(masked(0x82, "hello"))
	f.Add([]byte{0x82, 0xfe, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bufio.NewReader(bytes.NewReader(b))
		for {
			got, err := readFrame(r)
			if err != nil {
				return
			}
			if len(got.payload) > maxMessage {
				t.Fatal("too large")
			}
		}
	})
}
