package hbone_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/hbone"
	"github.com/ambit-mesh/ambit/identity/mtls"
)

const (
	frameData, frameHeaders, framePriority, frameReset, frameSettings = 0, 1, 2, 3, 4
	framePush, framePing, frameGoAway, frameUpdate, frameContinuation = 5, 6, 7, 8, 9

	endStream, endHeaders, padded, ack = 1, 4, 8, 1
)

func word(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

func setting(key uint16, v uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(nil, key), v)
}

// ping waits until the server has done with everything before.
func (r *raw) ping() error {
	r.WritePing(false, [8]byte{'t', 'h', 'e', 'r', 'e'})
	r.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	for {
		f, err := r.ReadFrame()
		if err != nil {
			return err
		}
		if p, ok := f.(*http2.PingFrame); ok && p.IsAck() {
			return nil
		}
	}
}

// The cases of RFC 9113 and RFC 7541 that apply to tunnels. Stream 1 is open when a case begins.
func TestConformance_HB23(t *testing.T) {
	var b backend
	m := onLoopback(t, b.serve)
	connect := []string{":method", "CONNECT", ":authority", "10.0.0.9:80"}
	frame := func(kind http2.FrameType, flags http2.Flags, stream uint32, payload []byte) func(*raw) {
		return func(r *raw) { r.WriteRawFrame(kind, flags, stream, payload) }
	}
	headers := func(block ...byte) func(*raw) { return frame(frameHeaders, endHeaders, 3, block) }
	for _, c := range []struct {
		name string
		send func(*raw)
		want string // what the connection ends with; "" if it lives on
	}{
		{"5.1 DATA on an idle stream", frame(frameData, 0, 5, nil), "PROTOCOL_ERROR"},
		{"5.1 RST_STREAM on an idle stream", frame(frameReset, 0, 5, word(8)), "PROTOCOL_ERROR"},
		{"5.1 WINDOW_UPDATE on an idle stream", frame(frameUpdate, 0, 5, word(8)), "PROTOCOL_ERROR"},
		{"5.1 PRIORITY on an idle stream", frame(framePriority, 0, 5, []byte{0, 0, 0, 0, 1}), ""},
		{"5.1.1 a stream of the server's", frame(frameHeaders, endHeaders, 2, nil), "PROTOCOL_ERROR"},
		{"5.1.1 a stream below the last", func(r *raw) { r.headers(5, connect...); r.headers(3, connect...) }, "STREAM_CLOSED"},
		{"4.1 an unknown frame", frame(0x77, 0xff, 1, []byte("what")), ""},
		{"4.1 unknown flags", frame(framePing, 0xfe, 0, make([]byte, 8)), ""},
		{"4.1 the reserved bit", func(r *raw) {
			r.conn.Write(append([]byte{0, 0, 8, framePing, 0, 0x80, 0, 0, 0}, make([]byte, 8)...))
		}, ""},
		{"4.2 a frame over the limit", func(r *raw) { r.conn.Write([]byte{0x10, 0, 1, frameData, 0, 0, 0, 0, 1}) }, "FRAME_SIZE_ERROR"},
		{"6.1 DATA on stream 0", frame(frameData, 0, 0, nil), "PROTOCOL_ERROR"},
		{"6.1 padding as long as its frame", frame(frameData, padded, 1, []byte{4, 0, 0, 0}), "PROTOCOL_ERROR"},
		{"6.1 padding", frame(frameData, padded, 1, []byte{2, 'x', 0, 0}), ""},
		{"6.2 HEADERS on stream 0", frame(frameHeaders, endHeaders, 0, nil), "PROTOCOL_ERROR"},
		{"6.2 padding longer than a header block", frame(frameHeaders, endHeaders|padded, 3, []byte{9, 0x82}), "PROTOCOL_ERROR"},
		{"6.2 a frame within a header block", func(r *raw) { r.WriteRawFrame(frameHeaders, 0, 3, nil); r.WritePing(false, [8]byte{}) }, "PROTOCOL_ERROR"},
		{"6.2 another header block within one", func(r *raw) { r.WriteRawFrame(frameHeaders, 0, 3, nil); r.headers(5, connect...) }, "PROTOCOL_ERROR"},
		{"6.2 a header block in pieces", func(r *raw) {
			block := r.block(connect...)
			r.WriteRawFrame(frameHeaders, 0, 3, block[:2])
			r.WriteRawFrame(frameContinuation, 0, 3, nil)
			r.WriteRawFrame(frameContinuation, endHeaders, 3, block[2:])
		}, ""},
		{"6.3 PRIORITY on stream 0", frame(framePriority, 0, 0, []byte{0, 0, 0, 0, 1}), "PROTOCOL_ERROR"},
		{"6.3 PRIORITY of 4 bytes", frame(framePriority, 0, 1, []byte{0, 0, 0, 0}), "FRAME_SIZE_ERROR"},
		{"5.3.1 a stream that depends on itself", frame(framePriority, 0, 1, []byte{0, 0, 0, 1, 1}), "PROTOCOL_ERROR"},
		{"6.4 RST_STREAM on stream 0", frame(frameReset, 0, 0, word(8)), "PROTOCOL_ERROR"},
		{"6.4 RST_STREAM of 3 bytes", frame(frameReset, 0, 1, []byte{0, 0, 8}), "FRAME_SIZE_ERROR"},
		{"6.5 SETTINGS on a stream", frame(frameSettings, 0, 1, nil), "PROTOCOL_ERROR"},
		{"6.5 SETTINGS of 3 bytes", frame(frameSettings, 0, 0, []byte{0, 3, 0}), "FRAME_SIZE_ERROR"},
		{"6.5 an acknowledgement that says something", frame(frameSettings, ack, 0, setting(4, 1)), "FRAME_SIZE_ERROR"},
		{"6.5.2 ENABLE_PUSH 2", frame(frameSettings, 0, 0, setting(2, 2)), "PROTOCOL_ERROR"},
		{"6.5.2 INITIAL_WINDOW_SIZE 2^31", frame(frameSettings, 0, 0, setting(4, 1<<31)), "FLOW_CONTROL_ERROR"},
		{"6.5.2 MAX_FRAME_SIZE 16383", frame(frameSettings, 0, 0, setting(5, 16383)), "PROTOCOL_ERROR"},
		{"6.5.2 MAX_FRAME_SIZE 2^24", frame(frameSettings, 0, 0, setting(5, 1<<24)), "PROTOCOL_ERROR"},
		{"6.5.2 an unknown setting", frame(frameSettings, 0, 0, setting(0x7777, 7)), ""},
		{"6.6 PUSH_PROMISE", frame(framePush, endHeaders, 1, word(2)), "PROTOCOL_ERROR"},
		{"6.7 PING on a stream", frame(framePing, 0, 1, make([]byte, 8)), "PROTOCOL_ERROR"},
		{"6.7 PING of 6 bytes", frame(framePing, 0, 0, make([]byte, 6)), "FRAME_SIZE_ERROR"},
		{"6.7 an answer to no ping", frame(framePing, ack, 0, make([]byte, 8)), ""},
		{"6.8 GOAWAY on a stream", frame(frameGoAway, 0, 1, make([]byte, 8)), "PROTOCOL_ERROR"},
		{"6.8 GOAWAY of 7 bytes", frame(frameGoAway, 0, 0, make([]byte, 7)), "FRAME_SIZE_ERROR"},
		{"6.9 WINDOW_UPDATE of 3 bytes", frame(frameUpdate, 0, 1, []byte{0, 0, 1}), "FRAME_SIZE_ERROR"},
		{"6.9 WINDOW_UPDATE by nothing", frame(frameUpdate, 0, 0, word(0)), "PROTOCOL_ERROR"},
		{"6.9.1 the connection's window above 2^31-1", frame(frameUpdate, 0, 0, word(1<<31-1)), "FLOW_CONTROL_ERROR"},
		{"6.10 CONTINUATION without a block", frame(frameContinuation, endHeaders, 1, nil), "PROTOCOL_ERROR"},
		{"6.10 CONTINUATION behind a block's end", func(r *raw) { r.headers(3, connect...); r.WriteContinuation(3, true, nil) }, "PROTOCOL_ERROR"},
		{"HPACK 2.3.3 index beyond both tables", headers(0xff, 0x7f), "COMPRESSION_ERROR"},
		{"HPACK 6.1 index 0", headers(0x80), "COMPRESSION_ERROR"},
		{"HPACK 4.2 a table's size behind a field", headers(0x82, 0x20), "COMPRESSION_ERROR"},
		{"HPACK 6.3 a table larger than allowed", headers(0x3f, 0xe2, 0x1f, 0x82), "COMPRESSION_ERROR"},
		{"HPACK 5.2 a string that is cut", headers(0x40, 0x0a, 'x'), "COMPRESSION_ERROR"},
		{"HPACK 5.2 Huffman padding of 8 bits", headers(0x40, 0x82, 0x1f, 0xff, 0x01, 'x'), "COMPRESSION_ERROR"},
		{"HPACK 5.2 Huffman padding of zeros", headers(0x40, 0x81, 0x18, 0x01, 'x'), "COMPRESSION_ERROR"},
		{"HPACK 5.2 Huffman's end of string", headers(0x40, 0x84, 0xff, 0xff, 0xff, 0xff, 0x01, 'x'), "COMPRESSION_ERROR"},
		{"HPACK 5.1 an integer without end", headers(append([]byte{0xff}, bytes.Repeat([]byte{0xff}, 12)...)...), "COMPRESSION_ERROR"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := m.raw(t)
			r.headers(1, connect...)
			if got := r.status(1); got != "200" {
				t.Fatalf("tunnel: %s", got)
			}
			c.send(r)
			if c.want == "" {
				if err := r.ping(); err != nil {
					t.Errorf("the connection ends: %v", err)
				}
				return
			}
			if why, told := r.farewell(); told && why.String() != c.want || !told {
				t.Errorf("ended with %v (told: %v), want %s", why, told, c.want)
			}
		})
	}
}

// What is wrong with one stream ends that stream, and no other.
func TestConformanceOfStreams_HB23(t *testing.T) {
	release := make(chan struct{})
	m := onLoopback(t, func(_ context.Context, tun hbone.Tunnel) {
		if _, err := tun.Accept(nil); err == nil {
			<-release // reads nothing
		}
	})
	defer close(release)
	connect := []string{":method", "CONNECT", ":authority", "10.0.0.9:80"}
	for _, c := range []struct {
		name string
		send func(*raw)
		want string
	}{
		{"5.1 DATA behind the end", func(r *raw) { r.WriteData(3, true, nil); r.WriteData(3, false, []byte("x")) }, "STREAM_CLOSED"},
		{"5.1 HEADERS behind the end", func(r *raw) { r.WriteData(3, true, nil); r.headers(3, connect...) }, "STREAM_CLOSED"},
		{"8.1 a second header block that ends nothing", func(r *raw) { r.headers(3, "x", "y") }, "PROTOCOL_ERROR"},
		{"8.1 trailers with a pseudo-header", func(r *raw) {
			r.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: r.block(":method", "CONNECT"), EndHeaders: true, EndStream: true})
		}, "PROTOCOL_ERROR"},
		{"6.9 WINDOW_UPDATE by nothing", func(r *raw) { r.WriteRawFrame(frameUpdate, 0, 3, word(0)) }, "PROTOCOL_ERROR"},
		{"6.9.1 a window above 2^31-1", func(r *raw) { r.WriteWindowUpdate(3, 1<<31-1) }, "FLOW_CONTROL_ERROR"},
		{"6.9.1 more data than the window", func(r *raw) {
			for range 5 {
				r.WriteData(3, false, make([]byte, 16000))
			}
		}, "FLOW_CONTROL_ERROR"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := m.raw(t)
			for _, stream := range []uint32{1, 3} {
				r.headers(stream, connect...)
				if got := r.status(stream); got != "200" {
					t.Fatalf("tunnel: %s", got)
				}
			}
			c.send(r)
			if got := r.status(3); got != c.want {
				t.Errorf("stream ended with %s, want %s", got, c.want)
			}
			r.WriteData(1, false, []byte("x"))
			if err := r.ping(); err != nil {
				t.Errorf("the connection ends: %v", err)
			}
		})
	}
	t.Run("5.1.2 more streams than allowed", func(t *testing.T) {
		r := m.raw(t)
		for i := range uint32(201) {
			r.headers(2*i+1, connect...)
			want := "200"
			if i == 200 {
				want = "REFUSED_STREAM"
			}
			if got := r.status(2*i + 1); got != want {
				t.Fatalf("stream %d: %s, want %s", 2*i+1, got, want)
			}
		}
	})
}

// waived are the cases of h2spec that do not fit a server of tunnels, which answers 400 to whatever is no CONNECT.
func waived() map[string]string {
	const answered = "a malformed request may be answered before it is reset (RFC 9113, section 8.1.1): it is no CONNECT, so 400"
	return map[string]string{
		"Sends a WINDOW_UPDATE frame on half-closed (remote) stream":                                                                           "wants a body behind the 400",
		"Sends a PRIORITY frame on half-closed (remote) stream":                                                                                "wants a body behind the 400",
		"Sends a large size HEADERS frame that exceeds the SETTINGS_MAX_FRAME_SIZE":                                                            "assumes 16384, we take 1 MiB",
		"Sends HEADERS frames that causes their advertised concurrent stream limit to be exceeded":                                             "each is answered at once; see 5.1.2 above",
		"Sends a second HEADERS frame without the END_STREAM flag":                                                                             "the first is answered already; see 8.1 above",
		"Sends multiple WINDOW_UPDATE frames increasing the flow control window to above 2^31-1 on a stream":                                   "the stream may be over by then; see 6.9.1 above",
		"Sends a HEADERS frame that contains a pseudo-header field as trailers":                                                                "the stream may be over by then; see 8.1 above",
		`Sends a HEADERS frame with empty ":path" pseudo-header field`:                                                                         answered,
		`Sends a HEADERS frame that omits ":scheme" pseudo-header field`:                                                                       answered,
		`Sends a HEADERS frame that omits ":path" pseudo-header field`:                                                                         answered,
		`Sends a HEADERS frame with the "content-length" header field which does not equal the DATA frame payload length`:                      answered,
		`Sends a HEADERS frame with the "content-length" header field which does not equal the sum of the multiple DATA frames payload length`: answered,
	}
}

// h2spec (github.com/summerwind/h2spec) speaks no mutual TLS: it talks to a relay that does.
func TestH2Spec_HB23(t *testing.T) {
	bin := os.Getenv("H2SPEC")
	if bin == "" {
		t.Skip("H2SPEC does not name the program; TestConformance_HB23 has the cases that apply to tunnels")
	}
	var b backend
	m := onLoopback(t, b.serve)
	l := listen(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				s, err := tls.Dial("tcp", m.addr, mtls.Client(id("a"), m.ca, m.ca, mtls.OneOf(id("b"))))
				if err != nil {
					t.Errorf("relay: %v", err)
					return
				}
				defer s.Close()
				wg.Go(func() { io.Copy(s, c); s.CloseWrite() })
				io.Copy(c, s)
			})
		}
	})
	defer wg.Wait()
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(bin, "-h", "127.0.0.1", "-p", port, "-o", "3", "generic", "http2", "hpack").CombinedOutput()
	_, failures, _ := strings.Cut(string(out), "Failures:")
	waived := waived()
	for _, x := range regexp.MustCompile(`× \d+: (.*)`).FindAllStringSubmatch(failures, -1) {
		name := strings.TrimSpace(regexp.MustCompile(`\x1b\[[0-9;]*m`).ReplaceAllString(x[1], ""))
		if waived[name] == "" {
			t.Errorf("failed: %s", name)
		}
	}
	if !regexp.MustCompile(`14\d tests, 1[34]\d passed`).Match(out) {
		t.Errorf("h2spec: %v\n%s", err, out)
	}
}
