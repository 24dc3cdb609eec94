package h2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func server() *Conn {
	return New(Config{Server: true, StreamWindow: 64 << 10, MaxStreamWindow: 4 << 20, ConnWindow: 16 << 20, MaxFrame: 1 << 20, MaxHeaderList: 64 << 10, MaxStreams: 200})
}

func client() *Conn {
	return New(Config{StreamWindow: 64 << 10, MaxStreamWindow: 4 << 20, ConnWindow: 16 << 20, MaxFrame: 1 << 20, MaxHeaderList: 16 << 10, MaxStreams: 100})
}

// pass carries what waits on one side to the other, and gives what it meant there.
func pass(t testing.TB, from, to *Conn) []Event {
	t.Helper()
	ev, err := to.Feed(from.TakeOut(nil), nil)
	if err != nil {
		t.Fatalf("feed: %v", err)
	}
	return ev
}

// settled gives a client and a server that know each other's settings.
func settled(t testing.TB) (c, s *Conn) {
	c, s = client(), server()
	pass(t, c, s)
	pass(t, s, c)
	pass(t, c, s)
	return c, s
}

func u32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

func fr(kind, flags byte, stream uint32, payload ...byte) []byte {
	return append(appendFrameHeader(nil, len(payload), kind, flags, stream), payload...)
}

func cat(b ...[]byte) []byte { return bytes.Join(b, nil) }

// request is a header block for a tunnel.
func request() []byte {
	return appendField(appendField(nil, staticMethod, "", "CONNECT"), staticAuthority, "", "10.0.0.9:80")
}

func TestATunnelFromOpenToEnd(t *testing.T) {
	c, s := settled(t)
	id, err := c.Open("10.0.0.9:80", []Field{{"forwarded", `for="10.0.0.1:9"`}})
	if err != nil {
		t.Fatal(err)
	}
	ev := pass(t, c, s)
	want := []Event{{Kind: Request, Stream: 1, Head: &Head{Method: "CONNECT", Authority: "10.0.0.9:80", HasAuthority: true, Fields: []Field{{"forwarded", `for="10.0.0.1:9"`}}}}}
	if diff := cmp.Diff(want, ev); diff != "" {
		t.Fatal(diff)
	}
	if err := s.Respond(id, 200, nil, false); err != nil {
		t.Fatal(err)
	}
	send(s, id, []byte("hello"))
	s.SendEnd(id)
	want = []Event{{Kind: Response, Stream: 1, Head: &Head{Status: 200}}, {Kind: Data, Stream: 1, Data: []byte("hello")}, {Kind: End, Stream: 1}}
	if diff := cmp.Diff(want, pass(t, s, c)); diff != "" {
		t.Fatal(diff)
	}
	send(c, id, []byte("bye"))
	c.SendEnd(id)
	want = []Event{{Kind: Data, Stream: 1, Data: []byte("bye")}, {Kind: End, Stream: 1}}
	if diff := cmp.Diff(want, pass(t, c, s)); diff != "" {
		t.Fatal(diff)
	}
	if c.Streams() != 0 || s.Streams() != 0 {
		t.Errorf("streams left: %d, %d", c.Streams(), s.Streams())
	}
}

// However the bytes are cut, they mean the same.
func TestOneByteAtATime(t *testing.T) {
	big := appendField(request(), 0, "x", strings.Repeat("y", 20_000))
	in := cat([]byte(Preface), fr(frameSettings, 0, 0),
		fr(frameHeaders, flagPadded|flagPriority, 1, cat([]byte{3}, u32(0), []byte{9}, big[:100], []byte{0, 0, 0})...),
		fr(frameContinuation, 0, 1, big[100:9000]...), fr(frameContinuation, flagEndHeaders, 1, big[9000:]...),
		fr(frameData, flagPadded|flagEndStream, 1, 2, 'a', 'b', 0, 0), fr(0x42, 0xff, 7, 1, 2, 3))
	read := func(step int) (all []Event, out []byte) {
		s := server()
		var data []byte
		for i := 0; i < len(in); i += step {
			ev, err := s.Feed(in[i:min(i+step, len(in))], nil)
			if err != nil {
				t.Fatalf("step %d: %v", step, err)
			}
			for _, e := range ev {
				if e.Kind == Data {
					data = append(data, e.Data...)
					continue
				}
				all = append(all, e)
			}
		}
		if string(data) != "ab" {
			t.Fatalf("step %d: data %q", step, data)
		}
		return all, s.TakeOut(nil)
	}
	want, wantOut := read(len(in))
	for _, step := range []int{1, 2, 7, 1000} {
		got, out := read(step)
		if diff := cmp.Diff(want, got); diff != "" || !bytes.Equal(out, wantOut) {
			t.Errorf("step %d: %s", step, diff)
		}
	}
}

func TestWhatEndsAConnection(t *testing.T) {
	hello := cat([]byte(Preface), fr(frameSettings, 0, 0))
	open := fr(frameHeaders, flagEndHeaders, 1, request()...)
	cases := []struct {
		name string
		in   []byte
		want Code
	}{
		{"another protocol", []byte("GET / HTTP/1.1\r\n\r\n"), ProtocolError},
		{"first frame is PING", cat([]byte(Preface), fr(framePing, 0, 0, make([]byte, 8)...)), ProtocolError},
		{"frame over the limit", cat(hello, appendFrameHeader(nil, 1<<20+1, frameData, 0, 1)), FrameSizeError},
		{"DATA on stream 0", cat(hello, fr(frameData, 0, 0, 1)), ProtocolError},
		{"DATA on an idle stream", cat(hello, fr(frameData, 0, 1, 1)), ProtocolError},
		{"DATA with too much padding", cat(hello, open, fr(frameData, flagPadded, 1, 2, 0)), ProtocolError},
		{"padded DATA without pad length", cat(hello, open, fr(frameData, flagPadded, 1)), FrameSizeError},
		{"HEADERS on an even stream", cat(hello, fr(frameHeaders, flagEndHeaders, 2, request()...)), ProtocolError},
		{"HEADERS on a lower stream", cat(hello, fr(frameHeaders, flagEndHeaders, 3, request()...), open), StreamClosed},
		{"HEADERS that depends on itself", cat(hello, fr(frameHeaders, flagEndHeaders|flagPriority, 1, cat(u32(1), []byte{0}, request())...)), ProtocolError},
		{"frame within a header block", cat(hello, fr(frameHeaders, 0, 1, request()...), fr(framePing, 0, 0, make([]byte, 8)...)), ProtocolError},
		{"CONTINUATION of another stream", cat(hello, fr(frameHeaders, 0, 1, request()...), fr(frameContinuation, 0, 3)), ProtocolError},
		{"CONTINUATION of nothing", cat(hello, fr(frameContinuation, flagEndHeaders, 1)), ProtocolError},
		{"broken HPACK", cat(hello, fr(frameHeaders, flagEndHeaders, 1, 0x80|80)), CompressionError},
		{"truncated HPACK", cat(hello, fr(frameHeaders, flagEndHeaders, 1, 0x00, 5, 'a')), CompressionError},
		{"PUSH_PROMISE", cat(hello, fr(framePush, flagEndHeaders, 1, 0, 0, 0, 2)), ProtocolError},
		{"PING of 7 bytes", cat(hello, fr(framePing, 0, 0, make([]byte, 7)...)), FrameSizeError},
		{"PING on a stream", cat(hello, fr(framePing, 0, 1, make([]byte, 8)...)), ProtocolError},
		{"RST_STREAM on an idle stream", cat(hello, fr(frameReset, 0, 1, u32(8)...)), ProtocolError},
		{"WINDOW_UPDATE by 0", cat(hello, fr(frameWindowUpdate, 0, 0, u32(0)...)), ProtocolError},
		{"WINDOW_UPDATE above 2^31-1", cat(hello, fr(frameWindowUpdate, 0, 0, u32(maxWindow)...)), FlowControlError},
		{"WINDOW_UPDATE on an idle stream", cat(hello, fr(frameWindowUpdate, 0, 9, u32(1)...)), ProtocolError},
		{"SETTINGS of 5 bytes", cat(hello, fr(frameSettings, 0, 0, 1, 2, 3, 4, 5)), FrameSizeError},
		{"SETTINGS with a window above 2^31-1", cat(hello, fr(frameSettings, 0, 0, 0, 4, 0x80, 0, 0, 0)), FlowControlError},
		{"SETTINGS with a frame size of 1", cat(hello, fr(frameSettings, 0, 0, 0, 5, 0, 0, 0, 1)), ProtocolError},
		{"SETTINGS acknowledged with payload", cat(hello, fr(frameSettings, flagAck, 0, make([]byte, 6)...)), FrameSizeError},
		{"GOAWAY of 4 bytes", cat(hello, fr(frameGoAway, 0, 0, 0, 0, 0, 0)), FrameSizeError},
		{"PRIORITY that depends on itself", cat(hello, fr(framePriority, 0, 3, cat(u32(3), []byte{0})...)), ProtocolError},
	}
	for _, c := range cases {
		s := server()
		_, err := s.Feed(c.in, nil)
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Code != c.want {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
			continue
		}
		out := s.TakeOut(nil)
		if !bytes.Contains(out, u32(uint32(c.want))) || !bytes.Contains(out, []byte{0, 0, frameGoAway, 0}) && !bytes.Contains(out, []byte{frameGoAway, 0, 0, 0, 0, 0}) {
			t.Errorf("%s: no GOAWAY in %x", c.name, out)
		}
		if _, err := s.Feed([]byte("x"), nil); err == nil {
			t.Errorf("%s: lives on", c.name)
		}
	}
}

func TestWhatEndsAStream(t *testing.T) {
	answered := func(s *Conn) { s.Respond(1, 200, nil, false) }
	cases := []struct {
		name string
		in   []byte
		want Code
	}{
		{"DATA after the end", cat(fr(frameData, flagEndStream, 1), fr(frameData, 0, 1, 'x')), StreamClosed},
		{"second header block", fr(frameHeaders, flagEndHeaders, 1, appendField(nil, 0, "a", "b")...), ProtocolError},
		{"trailers with a method", fr(frameHeaders, flagEndHeaders|flagEndStream, 1, request()...), ProtocolError},
		{"WINDOW_UPDATE by 0", fr(frameWindowUpdate, 0, 1, u32(0)...), ProtocolError},
		{"WINDOW_UPDATE above 2^31-1", fr(frameWindowUpdate, 0, 1, u32(maxWindow)...), FlowControlError},
		{"more than the window", fr(frameData, 0, 1, make([]byte, 64<<10+1)...), FlowControlError},
		{"more than the window with padding", fr(frameData, flagPadded, 1, append([]byte{255}, make([]byte, 64<<10)...)...), FlowControlError},
	}
	for _, c := range cases {
		s := server()
		s.Feed(cat([]byte(Preface), fr(frameSettings, 0, 0), fr(frameHeaders, flagEndHeaders, 1, request()...)), nil)
		answered(s)
		s.TakeOut(nil)
		ev, err := s.Feed(c.in, nil)
		if err != nil {
			t.Errorf("%s: ends the connection: %v", c.name, err)
			continue
		}
		last := ev[len(ev)-1]
		if last.Kind != Reset || last.Code != c.want || !last.Local {
			t.Errorf("%s: %+v, want a reset for %v", c.name, last, c.want)
		}
		if !bytes.Contains(s.TakeOut(nil), fr(frameReset, 0, 1, u32(uint32(c.want))...)) {
			t.Errorf("%s: no RST_STREAM", c.name)
		}
	}
	s := server()
	s.Feed(cat([]byte(Preface), fr(frameSettings, 0, 0), fr(frameHeaders, flagEndHeaders, 1, request()...)), nil)
	ev, err := s.Feed(fr(frameHeaders, flagEndHeaders|flagEndStream, 1, appendField(nil, 0, "a", "b")...), nil)
	if diff := cmp.Diff([]Event{{Kind: End, Stream: 1}}, ev); err != nil || diff != "" {
		t.Errorf("trailers: %v %s", err, diff)
	}
}

func TestWindowsOpenOnlyForWhatWasTaken(t *testing.T) {
	c, s := settled(t)
	id, _ := c.Open("10.0.0.9:80", nil)
	pass(t, c, s)
	s.Respond(id, 200, nil, false)
	pass(t, s, c)
	if n := send(c, id, make([]byte, 1<<20)); n != 64<<10 {
		t.Fatalf("sent %d, want the stream's first window", n)
	}
	for _, e := range pass(t, c, s) {
		if e.Kind != Data {
			t.Fatalf("event %+v", e)
		}
	}
	if s.Out() != 0 {
		t.Fatal("a window update for data that nobody took")
	}
	s.Consumed(id, 64<<10)
	ev := pass(t, s, c)
	if len(ev) == 0 || ev[0].Kind != Writable {
		t.Fatalf("events %+v", ev)
	}
	if n := c.Window(id); n != 128<<10 {
		t.Errorf("window %d: a stream that keeps up gets twice as much", n)
	}
	sent := 0
	for range 40 {
		n := send(c, id, make([]byte, 1<<20))
		sent += n
		pass(t, c, s)
		s.Consumed(id, n)
		pass(t, s, c)
	}
	if n := c.Window(id); n > 4<<20 || n < 3<<20 {
		t.Errorf("window %d after %d bytes, want about 4 MiB", n, sent)
	}
}

// Bytes thrown away, padding and bytes of streams that are gone must all be granted again, or the window leaks.
func TestTheConnectionsWindowDoesNotLeak(t *testing.T) {
	s := server()
	s.Feed(cat([]byte(Preface), fr(frameSettings, 0, 0)), nil)
	for i := range 2000 {
		id := uint32(2*i + 1)
		ev, err := s.Feed(fr(frameHeaders, flagEndHeaders, id, request()...), nil)
		if err != nil || len(ev) != 1 {
			t.Fatalf("stream %d: %v, %v", id, ev, err)
		}
		if _, err = s.Feed(fr(frameData, flagPadded, id, append([]byte{200}, make([]byte, 16000)...)...), nil); err != nil {
			t.Fatalf("stream %d: %v", id, err)
		}
		s.Reset(id, Cancel)
		s.Consumed(id, 15800)
		if _, err = s.Feed(fr(frameData, 0, id, make([]byte, 16000)...), nil); err != nil {
			t.Fatalf("stream %d after its reset: %v", id, err)
		}
		s.TakeOut(nil)
	}
}

func TestDrainTellsTwiceAndRefusesOnlyWhatCameAfter(t *testing.T) {
	c, s := settled(t)
	c.Open("10.0.0.9:80", nil)
	pass(t, c, s)
	s.Drain()
	late, err := c.Open("10.0.0.9:81", nil) // crosses the first GOAWAY
	if err != nil {
		t.Fatal(err)
	}
	if ev := pass(t, c, s); len(ev) != 1 || ev[0].Kind != Request || ev[0].Stream != late {
		t.Errorf("a stream on its way: %+v", ev)
	}
	if ev := pass(t, s, c); len(ev) != 1 || ev[0].Kind != GoAway {
		t.Errorf("client sees %+v", ev)
	}
	if _, err := c.Open("10.0.0.9:82", nil); err == nil {
		t.Error("opened a stream after GOAWAY")
	}
	pass(t, c, s)
	if ev := pass(t, s, c); len(ev) != 1 || ev[0].Kind != GoAway || ev[0].Stream != late || c.Streams() != 2 {
		t.Errorf("second GOAWAY: %+v, %d streams", ev, c.Streams())
	}
}

func TestGoAwayGivesBackWhatWasNotLookedAt(t *testing.T) {
	c, s := settled(t)
	c.Open("10.0.0.9:80", nil)
	c.Open("10.0.0.9:81", nil)
	pass(t, s, c)
	ev, err := c.Feed(fr(frameGoAway, 0, 0, cat(u32(1), u32(0))...), nil)
	want := Event{Kind: Reset, Stream: 3, Code: RefusedStream, Why: "peer went away"}
	if err != nil || len(ev) != 2 || cmp.Diff(want, ev[1]) != "" || c.Streams() != 1 {
		t.Errorf("events %+v, %v", ev, err)
	}
}

func TestLargeHeadersAreCutToThePeersFrames(t *testing.T) {
	c, s := client(), server()
	pass(t, c, s) // the client does not know yet that the server takes more than 16 KiB
	long := strings.Repeat("v", 40_000)
	if _, err := c.Open("10.0.0.9:80", []Field{{"long", long}}); err != nil {
		t.Fatal(err)
	}
	ev := pass(t, c, s)
	if len(ev) != 1 || ev[0].Head.Fields[0].Value != long {
		t.Errorf("events %+v", ev)
	}
	c, _ = settled(t)
	if _, err := c.Open("10.0.0.9:80", []Field{{"long", long + long}}); err == nil {
		t.Error("sent headers that the peer does not take")
	}
	if _, err := c.Open("10.0.0.9:80", []Field{{"bad", "a\r\nb"}}); err == nil || c.Streams() != 0 {
		t.Errorf("sent a header that splits: %v", err)
	}
}

func TestStreamLimit(t *testing.T) {
	c, s := settled(t)
	for range 100 {
		if _, err := c.Open("10.0.0.9:80", nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Open("10.0.0.9:80", nil); err != errFull || c.Room() != 0 {
		t.Errorf("101st: %v, room %d", err, c.Room())
	}
	pass(t, c, s)
	var out []byte
	for id := uint32(201); id < 501; id += 2 {
		if _, err := s.Feed(fr(frameHeaders, flagEndHeaders, id, request()...), nil); err != nil {
			t.Fatal(err)
		}
		out = append(out, s.TakeOut(nil)...)
	}
	if s.Streams() != 200 || !bytes.Contains(out, fr(frameReset, 0, 401, u32(uint32(RefusedStream))...)) {
		t.Errorf("%d streams; the 201st was not refused", s.Streams())
	}
}

// send sends as much of p as the windows allow, as a carrier does, and says how much.
func send(c *Conn, id uint32, p []byte) int {
	n := c.Reserve(id, len(p))
	for rest := p[:n]; len(rest) > 0; {
		m := min(len(rest), defaultMaxFrame)
		c.out = append(appendFrameHeader(c.out, m, frameData, 0, id), rest[:m]...)
		rest = rest[m:]
	}
	return n
}

func TestWindowThatWasReservedInVainIsGivenBack(t *testing.T) {
	c := New(Config{StreamWindow: 1 << 20, MaxStreamWindow: 1 << 20, ConnWindow: 1 << 20, MaxFrame: 1 << 14, MaxHeaderList: 1 << 14, MaxStreams: 10})
	var ids []uint32
	for range 2 {
		id, err := c.Open("10.0.0.9:80", nil)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if n := c.Reserve(ids[0], 1<<20); n != defaultWindow {
		t.Fatalf("reserved %d", n)
	}
	if n := c.Reserve(ids[1], 1); n != 0 {
		t.Fatalf("reserved %d of a closed window", n)
	}
	if !c.Unreserve(ids[0], 1000) || c.Unreserve(ids[0], 1) || c.Unreserve(ids[0], 0) {
		t.Error("only the first return opens the connection's window")
	}
	if n := c.Window(ids[1]); n != 1001 {
		t.Errorf("window %d", n)
	}
	c.Reset(ids[0], Cancel)
	c.Unreserve(ids[0], defaultWindow-1001) // of a stream that is gone
	if n := c.Window(ids[1]); n != defaultWindow {
		t.Errorf("window %d", n)
	}
}
