package hbone_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/ambit-mesh/ambit/hbone"
	"github.com/ambit-mesh/ambit/identity/mtls"
)

// raw is a client that sends any frame.
type raw struct {
	t    testing.TB
	conn *tls.Conn
	*http2.Framer
	enc *hpack.Encoder
	buf bytes.Buffer
}

func (m *mesh) raw(t testing.TB) *raw {
	t.Helper()
	conn, err := tls.Dial("tcp", m.addr, mtls.Client(id("a"), m.ca, m.ca, mtls.OneOf(id("b"))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	r := &raw{t: t, conn: conn, Framer: http2.NewFramer(conn, conn)}
	r.init()
	io.WriteString(conn, http2.ClientPreface)
	r.WriteSettings()
	r.WriteSettingsAck()
	return r
}

func (r *raw) init() {
	r.SetMaxReadFrameSize(1 << 20)
	r.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	r.enc = hpack.NewEncoder(&r.buf)
}

func (r *raw) block(fields ...string) []byte {
	r.buf.Reset()
	for i := 0; i < len(fields); i += 2 {
		r.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return bytes.Clone(r.buf.Bytes())
}

func (r *raw) headers(stream uint32, fields ...string) {
	r.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: r.block(fields...), EndHeaders: true})
}

// status waits for the answer on a stream.
func (r *raw) status(stream uint32) string {
	r.t.Helper()
	r.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	for {
		f, err := r.ReadFrame()
		if err != nil {
			r.t.Fatalf("wait for the status of stream %d: %v", stream, err)
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			if f.StreamID == stream {
				return f.PseudoValue("status")
			}
		case *http2.RSTStreamFrame:
			if f.StreamID == stream {
				return f.ErrCode.String()
			}
		case *http2.GoAwayFrame:
			r.t.Fatalf("wait for the status of stream %d: GOAWAY %v %q", stream, f.ErrCode, f.DebugData())
		}
	}
}

// farewell waits for the end of the connection, and gives the reason that the server told.
func (r *raw) farewell() (why http2.ErrCode, told bool) {
	r.t.Helper()
	r.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	for {
		f, err := r.ReadFrame()
		if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
			r.t.Fatal("the connection lives on")
		}
		if err != nil {
			if _, ok := errors.AsType[http2.StreamError](err); ok {
				continue
			}
			return why, told
		}
		if g, ok := f.(*http2.GoAwayFrame); ok {
			why, told = g.ErrCode, true
		}
	}
}

// backend counts the tunnels that got through, and their bytes.
type backend struct{ tunnels, bytes atomic.Int64 }

func (b *backend) serve(ctx context.Context, tun hbone.Tunnel) {
	if strings.HasPrefix(tun.Authority(), "10.6.6.6:") {
		tun.Refuse(http.StatusUnauthorized, "policy")
		return
	}
	c, err := tun.Accept(nil)
	if err != nil {
		return
	}
	defer c.Close()
	b.tunnels.Add(1)
	n, _ := io.Copy(c, c)
	b.bytes.Add(n)
}

func (b *backend) untouched(t *testing.T) {
	t.Helper()
	if b.tunnels.Load() != 0 || b.bytes.Load() != 0 {
		t.Errorf("backend saw %d tunnels, %d bytes", b.tunnels.Load(), b.bytes.Load())
	}
}

func TestOnlyCONNECT_HB01_HB06_HB08(t *testing.T) {
	var b backend
	m := onLoopback(t, b.serve)
	r := m.raw(t)
	cases := []struct {
		name   string
		fields []string
	}{
		{"HB-01 GET", []string{":method", "GET", ":scheme", "https", ":path", "/", ":authority", "10.0.0.9:80"}},
		{"HB-01 POST", []string{":method", "POST", ":scheme", "https", ":path", "/", ":authority", "10.0.0.9:80"}},
		{"HB-01 PUT", []string{":method", "PUT", ":scheme", "http", ":path", "/x", ":authority", "10.0.0.9:80"}},
		{"HB-06 userinfo", []string{":method", "CONNECT", ":authority", "u@10.0.0.9:80"}},
		{"HB-06 path", []string{":method", "CONNECT", ":authority", "10.0.0.9:80/x"}},
		{"HB-06 scheme", []string{":method", "CONNECT", ":authority", "http://10.0.0.9"}},
		{"HB-06 no port", []string{":method", "CONNECT", ":authority", "10.0.0.9"}},
		{"HB-06 port zero", []string{":method", "CONNECT", ":authority", "10.0.0.9:0"}},
		{"HB-06 port too large", []string{":method", "CONNECT", ":authority", "10.0.0.9:65536"}},
		{"HB-06 space", []string{":method", "CONNECT", ":authority", "10.0.0.9 :80"}},
		{"HB-06 zone", []string{":method", "CONNECT", ":authority", "[fe80::1%eth0]:80"}},
		{"HB-06 bare IPv6", []string{":method", "CONNECT", ":authority", "::1:80"}},
		{"HB-06 short address", []string{":method", "CONNECT", ":authority", "127.1:80"}},
		{"HB-06 empty", []string{":method", "CONNECT", ":authority", ""}},
		{"HB-06 absent", []string{":method", "CONNECT"}},
		{"HB-08 websocket", []string{":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":path", "/", ":authority", "10.0.0.9:80"}},
		{"HB-08 connect-udp", []string{":method", "CONNECT", ":protocol", "connect-udp", ":authority", "10.0.0.9:80"}},
		{"HB-08 scheme and path", []string{":method", "CONNECT", ":scheme", "https", ":path", "/", ":authority", "10.0.0.9:80"}},
	}
	stream := uint32(1)
	for _, c := range cases {
		r.headers(stream, c.fields...)
		r.WriteData(stream, false, []byte("GET / HTTP/1.1\r\n\r\n"))
		if got := r.status(stream); got != "400" {
			t.Errorf("%s: %s, want 400", c.name, got)
		}
		stream += 2
	}
	for _, malformed := range [][]string{
		{":method", "CONNECT", ":authority", "10.0.0.9:80", "Upper", "x"},
		{":method", "CONNECT", ":authority", "10.0.0.9:80", "connection", "close"},
		{":method", "CONNECT", ":authority", "10.0.0.9:80", "transfer-encoding", "chunked"},
		{":method", "CONNECT", ":authority", "10.0.0.9:80", "x", "a\r\nb"},
		{":method", "CONNECT", "x", "y", ":authority", "10.0.0.9:80"},
		{":method", "CONNECT", ":method", "CONNECT", ":authority", "10.0.0.9:80"},
		{":authority", "10.0.0.9:80"},
	} {
		r.headers(stream, malformed...)
		if got := r.status(stream); got != "PROTOCOL_ERROR" {
			t.Errorf("%q: %s, want a reset", malformed, got)
		}
		stream += 2
	}
	b.untouched(t)
	r.headers(stream, ":method", "CONNECT", ":authority", "10.0.0.9:80")
	if got := r.status(stream); got != "200" {
		t.Errorf("the connection does not live on: %s", got)
	}
}

func TestEarlyDataOfARefusedTunnelIsThrownAway_HB10(t *testing.T) {
	var b backend
	m := onLoopback(t, b.serve)
	r := m.raw(t)
	for i := range 300 { // more than the connection's window, so that what is thrown away must be granted again
		stream := uint32(2*i + 1)
		r.headers(stream, ":method", "CONNECT", ":authority", "10.6.6.6:80")
		for range 4 {
			r.WriteData(stream, false, make([]byte, 16000))
		}
		if got := r.status(stream); got != "401" {
			t.Fatalf("stream %d: %s, want 401", stream, got)
		}
	}
	b.untouched(t)
}

func TestRapidReset_HB14(t *testing.T) {
	var b backend
	release := make(chan struct{})
	m := onLoopback(t, func(ctx context.Context, tun hbone.Tunnel) { // a backend that does not answer
		select {
		case <-ctx.Done():
		case <-release:
		}
	})
	defer close(release)
	r := m.raw(t)
	go func() {
		for i := range 100_000 {
			r.headers(uint32(2*i+1), ":method", "CONNECT", ":authority", "10.0.0.9:80")
			if r.WriteRSTStream(uint32(2*i+1), http2.ErrCodeCancel) != nil {
				return
			}
		}
	}()
	if why, told := r.farewell(); told && why != http2.ErrCodeEnhanceYourCalm {
		t.Errorf("closed for %v, want ENHANCE_YOUR_CALM", why)
	}
	b.untouched(t)
}

func TestHeaderFloods_HB16_HB17(t *testing.T) {
	var b backend
	m := onLoopback(t, b.serve)
	t.Run("HB-16 endless CONTINUATION", func(t *testing.T) {
		r := m.raw(t)
		r.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: r.block(":method", "CONNECT"), EndHeaders: false})
		piece := r.block("x", strings.Repeat("y", 3000))
		sent := 0
		for sent < 1<<30 && r.WriteContinuation(1, false, piece) == nil {
			sent += len(piece)
		}
		if why, told := r.farewell(); told && why != http2.ErrCodeEnhanceYourCalm {
			t.Errorf("closed for %v, want ENHANCE_YOUR_CALM", why)
		}
	})
	t.Run("HB-16 empty CONTINUATION", func(t *testing.T) {
		r := m.raw(t)
		r.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: r.block(":method", "CONNECT"), EndHeaders: false})
		for range 1000 {
			if r.WriteContinuation(1, false, nil) != nil {
				break
			}
		}
		if why, told := r.farewell(); told && why != http2.ErrCodeEnhanceYourCalm {
			t.Errorf("closed for %v, want ENHANCE_YOUR_CALM", why)
		}
	})
	t.Run("HB-17 indexed bomb", func(t *testing.T) {
		r := m.raw(t)
		entry := r.block(":method", "CONNECT", ":authority", "10.0.0.9:80", "bomb", strings.Repeat("z", 3900))
		bomb := append(entry, bytes.Repeat([]byte{0x80 | 62}, 10_000)...) // the newest entry of the table, over and over
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: bomb, EndHeaders: true})
		got := r.status(1)
		runtime.ReadMemStats(&after)
		if got != "431" {
			t.Errorf("answer %s, want 431", got)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 2<<20 {
			t.Errorf("%d bytes allocated for a block of %d", n, len(bomb))
		}
		r.headers(3, ":method", "CONNECT", ":authority", "10.0.0.9:80")
		if got := r.status(3); got != "200" {
			t.Errorf("after it: %s, want 200", got)
		}
	})
}

func TestControlFloods_HB19(t *testing.T) {
	var b backend
	m := onLoopback(t, b.serve)
	floods := map[string]func(*raw, int) error{
		"PING":          func(r *raw, _ int) error { return r.WritePing(false, [8]byte{1}) },
		"SETTINGS":      func(r *raw, _ int) error { return r.WriteSettings() },
		"PRIORITY":      func(r *raw, i int) error { return r.WritePriority(uint32(i+3), http2.PriorityParam{Weight: 1}) },
		"empty DATA":    func(r *raw, _ int) error { return r.WriteData(1, false, nil) },
		"WINDOW_UPDATE": func(r *raw, _ int) error { return r.WriteWindowUpdate(1, 1) },
		"unknown":       func(r *raw, _ int) error { return r.WriteRawFrame(0x77, 0, 1, nil) },
		"empty HEADERS": func(r *raw, i int) error {
			return r.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 3), EndHeaders: true})
		},
	}
	for name, send := range floods {
		t.Run(name, func(t *testing.T) {
			r := m.raw(t)
			r.headers(1, ":method", "CONNECT", ":authority", "10.0.0.9:80")
			if got := r.status(1); got != "200" {
				t.Fatalf("tunnel: %s", got)
			}
			go func() {
				for i := range 200_000 {
					if send(r, i) != nil {
						return
					}
				}
			}()
			if why, told := r.farewell(); told && why != http2.ErrCodeEnhanceYourCalm {
				t.Errorf("closed for %v, want ENHANCE_YOUR_CALM", why)
			}
		})
	}
}

func TestStalledStreamsDoNotStopOthers_HB21(t *testing.T) {
	release := make(chan struct{})
	m := onLoopback(t, func(ctx context.Context, tun hbone.Tunnel) {
		c, err := tun.Accept(nil)
		if err != nil {
			return
		}
		defer c.Close()
		if tun.Authority() == "10.0.0.9:81" {
			<-release // never reads
			return
		}
		io.Copy(c, c)
	})
	defer close(release)
	m.dialer.Streams = 150
	for range 100 {
		s := m.dial(t, "10.0.0.9:81", nil)
		go func() {
			for p := make([]byte, 64<<10); ; {
				if _, err := s.Write(p); err != nil {
					return
				}
			}
		}()
	}
	s := m.dial(t, "10.0.0.9:80", nil)
	if n := m.dialer.Counts(); n != (hbone.Counts{Connections: 1, Streams: 101}) {
		t.Fatalf("open: %+v, want one connection for all", n)
	}
	sent, want := random(8<<20, 21)
	go func() { s.Write(sent); s.CloseWrite() }()
	done := make(chan struct{})
	go func() { defer close(done); checkSum(t, s, want) }()
	within(t, 20*time.Second, "8 MiB beside 100 stalled streams", done)
	var mem runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&mem)
	if mem.HeapAlloc > 48<<20 {
		t.Errorf("heap of %d MiB, want about a window", mem.HeapAlloc>>20)
	}
}

func TestOtherProtocols_HB25(t *testing.T) {
	var b backend
	m := onLoopback(t, b.serve)
	for _, protos := range [][]string{{"http/1.1"}, nil, {"junk"}} {
		t.Run(fmt.Sprintf("ALPN %q", protos), func(t *testing.T) {
			conf := mtls.Client(id("a"), m.ca, m.ca, mtls.OneOf(id("b")))
			conf.NextProtos, conf.VerifyConnection = protos, nil
			conn, err := tls.Dial("tcp", m.addr, conf)
			if err == nil {
				defer conn.Close()
				io.WriteString(conn, "CONNECT 10.0.0.9:80 HTTP/1.1\r\nHost: 10.0.0.9:80\r\n\r\n")
				conn.SetReadDeadline(time.Now().Add(5 * time.Second))
				var got []byte
				got, err = io.ReadAll(conn)
				if bytes.HasPrefix(got, []byte("HTTP/1")) {
					t.Errorf("answer %q", got)
				}
			}
			if err == nil {
				t.Error("not refused")
			}
		})
	}
	t.Run("HTTP/1.1 inside h2", func(t *testing.T) {
		conn, err := tls.Dial("tcp", m.addr, mtls.Client(id("a"), m.ca, m.ca, mtls.OneOf(id("b"))))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, "CONNECT 10.0.0.9:80 HTTP/1.1\r\nHost: 10.0.0.9:80\r\n\r\n")
		conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		got, err := io.ReadAll(conn)
		if ne, ok := errors.AsType[net.Error](err); bytes.Contains(got, []byte("HTTP/1")) || ok && ne.Timeout() {
			t.Errorf("answer %q, %v", got, err)
		}
	})
	b.untouched(t)
}
