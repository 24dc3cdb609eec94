package gateway

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// frameClient sends any frame to a gateway.
type frameClient struct {
	*http2.Framer
	t   *testing.T
	c   net.Conn
	enc *hpack.Encoder
	buf bytes.Buffer
}

func frameTo(t *testing.T, at string) *frameClient {
	t.Helper()
	c := dialled(t, at)
	f := &frameClient{Framer: http2.NewFramer(c, c), t: t, c: c}
	f.enc = hpack.NewEncoder(&f.buf)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := f.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return f
}

// block encodes fields, given as name, value, name, value.
func (f *frameClient) block(fields ...string) []byte {
	f.buf.Reset()
	for i := 0; i+1 < len(fields); i += 2 {
		if err := f.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}); err != nil {
			f.t.Fatal(err)
		}
	}
	return bytes.Clone(f.buf.Bytes())
}

func (f *frameClient) request(id uint32, end bool, fields ...string) {
	f.t.Helper()
	if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: f.block(fields...), EndHeaders: true, EndStream: end}); err != nil {
		f.t.Fatal(err)
	}
}

// outcome is what became of a stream: its status, "RST <code>", or "GOAWAY <code>" and "closed" for the connection.
func (f *frameClient) outcome(id uint32) string {
	f.t.Helper()
	for {
		fr, err := f.ReadFrame()
		if err != nil {
			return "closed"
		}
		switch fr := fr.(type) {
		case *http2.MetaHeadersFrame:
			if fr.StreamID == id {
				return fr.PseudoValue("status")
			}
		case *http2.RSTStreamFrame:
			if fr.StreamID == id {
				return "RST " + fr.ErrCode.String()
			}
		case *http2.GoAwayFrame:
			if fr.ErrCode != http2.ErrCodeNo {
				return "GOAWAY " + fr.ErrCode.String()
			}
		}
	}
}

func get2(extra ...string) []string {
	return append([]string{":method", "GET", ":scheme", "http", ":path", "/", ":authority", "a"}, extra...)
}

// RT-04, RT-20 and others: what HTTP/2 can say and HTTP/1 behind must never hear.
func TestRequestsOfHTTP2ThatAreRefused(t *testing.T) {
	at, received := web(t, echo)
	b := start(t, nil)
	b.apply(backend("web", at), route("*", to("web")), listener(8080, "*"))
	many := make([]string, 0, 2000)
	for i := range 1000 {
		many = append(many, fmt.Sprint("x-", i), "y")
	}
	post := []string{":method", "POST", ":scheme", "http", ":path", "/", ":authority", "a"}
	for name, c := range map[string]struct {
		fields []string
		data   string // sent as DATA with the end of the stream, unless empty
		want   string
	}{
		"RT-04 transfer-encoding":        {get2("transfer-encoding", "chunked"), "", "RST PROTOCOL_ERROR|400"},
		"RT-04 connection":               {get2("connection", "close"), "", "RST PROTOCOL_ERROR|400"},
		"RT-04 proxy-connection":         {get2("proxy-connection", "close"), "", "RST PROTOCOL_ERROR|400"},
		"RT-04 length without a body":    {get2("content-length", "5"), "", "400|RST PROTOCOL_ERROR"},
		"RT-04 two lengths":              {append(post, "content-length", "1", "content-length", "2"), "", "400|RST PROTOCOL_ERROR"},
		"RT-04 length +1":                {append(post, "content-length", "+1"), "x", "400|RST PROTOCOL_ERROR"},
		"RT-20 scheme HTTPs":             {[]string{":method", "GET", ":scheme", "HTTPs", ":path", "/", ":authority", "a"}, "", "RST PROTOCOL_ERROR|400"},
		"RT-20 scheme ws":                {[]string{":method", "GET", ":scheme", "ws", ":path", "/", ":authority", "a"}, "", "RST PROTOCOL_ERROR|400"},
		"RT-20 scheme javascript":        {[]string{":method", "GET", ":scheme", "javascript", ":path", "/", ":authority", "a"}, "", "RST PROTOCOL_ERROR|400"},
		"RT-07 CONNECT":                  {[]string{":method", "CONNECT", ":authority", "a:80"}, "", "405"},
		"RT-08 CONNECT for a WebSocket":  {[]string{":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":path", "/", ":authority", "a"}, "", "RST PROTOCOL_ERROR|405"},
		"two authorities":                {get2("host", "b"), "", "400|RST PROTOCOL_ERROR"},
		"path without slash":             {[]string{":method", "GET", ":scheme", "http", ":path", "admin", ":authority", "a"}, "", "RST PROTOCOL_ERROR|400"},
		"path with a fragment, L7-04":    {[]string{":method", "GET", ":scheme", "http", ":path", "/a#b", ":authority", "a"}, "", "400|RST PROTOCOL_ERROR"},
		"upper case name":                {get2("X-Role", "admin"), "", "RST PROTOCOL_ERROR"},
		"CR LF in a value":               {get2("x", "y\r\nz: 1"), "", "RST PROTOCOL_ERROR"},
		"no UTF-8 in a value":            {get2("x", "\xff"), "", "400"},
		"RT-19 1,000 headers":            {get2(many...), "", "431"},
		"RT-19 65 KiB of headers":        {get2("x", strings.Repeat("y", 66<<10)), "", "431|GOAWAY PROTOCOL_ERROR|GOAWAY COMPRESSION_ERROR|closed"},
		"method with a blank":            {[]string{":method", "GE T", ":scheme", "http", ":path", "/", ":authority", "a"}, "", "RST PROTOCOL_ERROR|400"},
		"host with a path":               {[]string{":method", "GET", ":scheme", "http", ":path", "/", ":authority", "a/b"}, "", "400|RST PROTOCOL_ERROR"},
		"HB-26 h2c upgrade by a header ": {get2("upgrade", "h2c"), "", "RST PROTOCOL_ERROR|400"},
	} {
		t.Run(name, func(t *testing.T) {
			f := frameTo(t, b.at(8080))
			block := f.block(c.fields...)
			if len(block) > 16<<10 {
				first, rest := block[:16<<10], block[16<<10:]
				f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: first, EndStream: true}) //nolint:errcheck // seen in the outcome
				for len(rest) > 0 {
					n := min(len(rest), 16<<10)
					f.WriteContinuation(1, n == len(rest), rest[:n]) //nolint:errcheck // as above
					rest = rest[n:]
				}
			} else {
				f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndHeaders: true, EndStream: c.data == ""}) //nolint:errcheck // as above
			}
			if c.data != "" {
				f.WriteData(1, true, []byte(c.data)) //nolint:errcheck // as above
			}
			if got := f.outcome(1); !strings.Contains("|"+c.want+"|", "|"+got+"|") {
				t.Errorf("outcome %q, want %s", got, c.want)
			}
		})
	}
	if n := received(); n != 0 {
		t.Errorf("the backend received %d bytes", n)
	}
}

// RT-04: a body that is not as long as it said must not reach a backend as a complete request, nor what follows as another.
func TestRT04LengthsThatLie(t *testing.T) {
	var complete, requests atomic.Int64
	at, _ := web(t, func(_ http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if _, err := io.ReadAll(r.Body); err == nil {
			complete.Add(1)
		}
	})
	b := start(t, nil)
	b.apply(backend("web", at), route("*", to("web")), listener(8080, "*"))
	for _, data := range []string{"abc", "abcdeGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"} {
		f := frameTo(t, b.at(8080))
		f.request(1, false, ":method", "POST", ":scheme", "http", ":path", "/", ":authority", "a", "content-length", "5")
		f.WriteData(1, true, []byte(data)) //nolint:errcheck // seen in the outcome
		if got := f.outcome(1); got == "200" {
			t.Errorf("%d bytes of 5: outcome %s", len(data), got)
		}
	}
	if complete.Load() != 0 || requests.Load() > 2 {
		t.Errorf("the backend saw %d requests, %d of them complete", requests.Load(), complete.Load())
	}
}

func TestFloodsEndTheirConnectionAlone(t *testing.T) {
	var served atomic.Int64
	at, _ := web(t, func(_ http.ResponseWriter, r *http.Request) {
		served.Add(1)
		io.Copy(io.Discard, r.Body) //nolint:errcheck // a test's own backend
	})
	b := start(t, nil)
	b.apply(backend("web", at), route("*", to("web")), listener(8080, "*"))
	next := uint32(1)
	for name, send := range map[string]func(f *frameClient) error{
		"HB-14 rapid reset": func(f *frameClient) error {
			if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: next, BlockFragment: f.block(get2()...), EndHeaders: true, EndStream: true}); err != nil {
				return err
			}
			next += 2
			return f.WriteRSTStream(next-2, http2.ErrCodeCancel)
		},
		"HB-19 pings": func(f *frameClient) error { return f.WritePing(false, [8]byte{1}) },
		"HB-19 settings": func(f *frameClient) error {
			return f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 65535})
		},
		"HB-19 priorities":      func(f *frameClient) error { return f.WritePriority(1, http2.PriorityParam{StreamDep: 3}) },
		"HB-19 empty data":      func(f *frameClient) error { return f.WriteData(1, false, nil) },
		"HB-19 one byte a time": func(f *frameClient) error { return f.WriteData(1, false, []byte{'x'}) },
		"RS-16 padded bytes":    func(f *frameClient) error { return f.WriteDataPadded(1, false, []byte{'x'}, make([]byte, 255)) },
		"unknown frames":        func(f *frameClient) error { return f.WriteRawFrame(0x42, 0, 0, nil) },
		"HB-16 continuations": func(f *frameClient) error {
			return f.WriteContinuation(1, false, f.block("x", strings.Repeat("y", 8<<10)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			next = 1
			f := frameTo(t, b.at(8080))
			switch {
			case strings.Contains(name, "data"), strings.Contains(name, "byte"):
				f.request(1, false, ":method", "POST", ":scheme", "http", ":path", "/", ":authority", "a")
			case strings.Contains(name, "continuations"):
				f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: f.block(get2()...)}) //nolint:errcheck // seen in the outcome
			}
			ended := make(chan string, 1)
			go func() { ended <- f.outcome(0) }()
			sent := 0
			for ; sent < 100_000; sent++ {
				if send(f) != nil {
					break
				}
			}
			select {
			case got := <-ended:
				t.Logf("%s after %d", got, sent)
			case <-time.After(10 * time.Second):
				t.Error("the connection is still open")
			}
			if n := served.Swap(0); n > 3000 {
				t.Errorf("the backend had to serve %d requests", n)
			}
			if got := get(t, browser(t), "http://"+b.at(8080)+"/", "a"); got.status != 200 {
				t.Errorf("another client: %d", got.status)
			}
		})
	}
}

// HB-17: headers are counted as they decode, not as they are sent.
func TestHB17CompressedHeadersAreCountedDecoded(t *testing.T) {
	at, received := web(t, echo)
	b := start(t, nil)
	b.apply(backend("web", at), route("*", to("web")), listener(8080, "*"))
	for name, fields := range map[string][]string{
		"one entry again and again": {"x-bomb", strings.Repeat("a", 3000)}, "cookie crumbs": {"cookie", strings.Repeat("c", 900)},
	} {
		f := frameTo(t, b.at(8080))
		all := get2()
		for range 100 {
			all = append(all, fields...)
		}
		f.request(1, true, all...)
		if got := f.outcome(1); got != "431" && !strings.HasPrefix(got, "GOAWAY") && got != "closed" {
			t.Errorf("%s: outcome %s, want 431", name, got)
		}
	}
	if n := received(); n != 0 {
		t.Errorf("the backend received %d bytes", n)
	}
}

// The figures of Envoy's edge practice are what a client is told.
func TestWindowsAndStreamsAreThoseOfAnEdge(t *testing.T) {
	b := start(t, nil)
	b.apply(route("*"), listener(8080, "*"))
	f := frameTo(t, b.at(8080))
	for {
		fr, err := f.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		s, ok := fr.(*http2.SettingsFrame)
		if !ok || s.IsAck() {
			continue
		}
		for id, want := range map[http2.SettingID]uint32{
			http2.SettingMaxConcurrentStreams: 100, http2.SettingInitialWindowSize: 64 << 10, http2.SettingMaxFrameSize: 16 << 10,
		} {
			if v, ok := s.Value(id); !ok || v != want {
				t.Errorf("%v is %d, want %d", id, v, want)
			}
		}
		if v, ok := s.Value(http2.SettingEnableConnectProtocol); ok && v != 0 {
			t.Error("extended CONNECT is offered") // HB-08
		}
		return
	}
}

// RS-06: streams whose clients open no window hold a buffer each, and no more.
func TestRS06StreamsWithoutAWindowHoldOneBuffer(t *testing.T) {
	var begun atomic.Int64
	piece := make([]byte, 4<<10)
	at, _ := web(t, func(w http.ResponseWriter, _ *http.Request) {
		begun.Add(1)
		for {
			if _, err := w.Write(piece); err != nil {
				return // it ends with the client
			}
		}
	})
	b := start(t, nil)
	b.apply(backend("web", at), route("*", to("web")), listener(8080, "*"))
	before := heapInUse()
	const conns, streams = 4, 100
	for range conns {
		f := frameTo(t, b.at(8080))
		if err := f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}); err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				if _, err := f.ReadFrame(); err != nil {
					return
				}
			}
		}()
		for i := range streams {
			f.request(uint32(2*i+1), true, get2()...)
		}
	}
	for limit := time.Now().Add(20 * time.Second); begun.Load() < conns*streams; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("%d of %d streams began", begun.Load(), conns*streams)
		}
	}
	time.Sleep(200 * time.Millisecond) // let what would grow grow
	held := int64(heapInUse()) - int64(before)
	t.Logf("%d KiB for each of %d streams, the test's own backend included", held>>10/(conns*streams), conns*streams)
	const own = 16 << 10 // what the test's backend and client hold for each
	if held > conns*streams*(64<<10+own) {
		t.Errorf("%d MiB are held for %d streams", held>>20, conns*streams)
	}
}
