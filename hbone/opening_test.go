package hbone_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/hbone"
	"github.com/ambit-mesh/ambit/identity/mtls"
	"github.com/ambit-mesh/ambit/internal/testkit/fakeca"
)

// fakeHop is the far end of tunnels, frame by frame.
type fakeHop struct {
	t      *testing.T
	l      *net.TCPListener
	ca     *fakeca.CA
	dialer *hbone.Dialer
	wg     sync.WaitGroup
}

func newFakeHop(t *testing.T) *fakeHop {
	h := &fakeHop{t: t, l: listen(t), ca: fakeca.New(t)}
	h.dialer = &hbone.Dialer{Source: h.ca, Roots: h.ca}
	t.Cleanup(func() { h.dialer.Close(); h.l.Close(); h.wg.Wait() })
	return h
}

// accept takes a connection for each of its arguments, and gives it to that, with its greeting done.
func (h *fakeHop) accept(all ...func(*raw)) {
	h.wg.Go(func() {
		for _, f := range all {
			c, err := h.l.Accept()
			if err != nil {
				return
			}
			h.greet(c, f)
		}
	})
}

func (h *fakeHop) greet(c net.Conn, f func(*raw)) {
	defer c.Close()
	conn := tls.Server(c, serverTLS(h.ca))
	if _, err := mtls.Handshake(context.Background(), conn); err != nil {
		h.t.Errorf("handshake: %v", err)
		return
	}
	if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
		h.t.Errorf("preface: %v", err)
		return
	}
	r := &raw{t: h.t, conn: conn, Framer: http2.NewFramer(conn, conn)}
	r.init()
	r.WriteSettings()
	f(r)
	conn.Close()
}

// said waits for a request and the first data behind it, without answering.
func (r *raw) said() (stream uint32, data string) {
	r.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	for {
		f, err := r.ReadFrame()
		if err != nil {
			r.t.Errorf("wait for early data: %v", err)
			return 0, ""
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			stream = f.StreamID
		case *http2.DataFrame:
			return stream, string(f.Data())
		}
	}
}

// join opens a tunnel through the hop for an application that says "GET /", and gives the application's end.
func (h *fakeHop) join() (app *net.TCPConn, opened chan struct{}, done chan hbone.Result) {
	l := listen(h.t)
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		h.t.Fatal(err)
	}
	inside, err := l.Accept()
	if err != nil {
		h.t.Fatal(err)
	}
	io.WriteString(c, "GET /")
	opened, done = make(chan struct{}, 1), make(chan hbone.Result, 1)
	h.wg.Go(func() {
		s, err := h.dialer.Open(context.Background(), hop(h.l.Addr().String()), "10.0.0.9:80", nil)
		if err != nil {
			inside.Close()
			done <- hbone.Result{Err: err}
			return
		}
		t := hbone.Traffic{Opened: func() { opened <- struct{}{} }}
		done <- t.Join(context.Background(), inside, s)
	})
	c.SetDeadline(time.Now().Add(10 * time.Second))
	h.t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn), opened, done
}

func TestTheFirstWordsDoNotWaitForTheAnswer(t *testing.T) {
	h := newFakeHop(t)
	h.accept(func(r *raw) {
		stream, data := r.said()
		if data != "GET /" {
			t.Errorf("before the answer: %q", data)
		}
		r.headers(stream, ":status", "200")
		r.WriteData(stream, false, []byte("found"))
		r.WriteData(stream, true, nil)
		io.Copy(io.Discard, r.conn)
	})
	app, opened, done := h.join()
	if got, err := io.ReadAll(app); string(got) != "found" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
	app.Close()
	if r := <-done; r.Err != nil || r.Sent != 5 || r.Received != 5 || len(opened) != 1 {
		t.Errorf("%+v, opened %d times", r, len(opened))
	}
}

func TestARefusalBehindFirstWordsIsAReset(t *testing.T) {
	h := newFakeHop(t)
	h.accept(func(r *raw) {
		stream, _ := r.said()
		r.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: r.block(":status", "401"), EndHeaders: true, EndStream: true})
		io.Copy(io.Discard, r.conn)
	})
	app, opened, done := h.join()
	if got, err := io.ReadAll(app); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read %q, %v, want a reset", got, err)
	}
	r := <-done
	e, ok := errors.AsType[*hbone.StatusError](r.Err)
	if !ok || e.Code != 401 || len(opened) != 0 || r.Err.Error() != "tunnel to 10.0.0.9:80: http status: 401 Unauthorized" || r.Sent != 0 {
		t.Errorf("%+v, opened %d times", r, len(opened))
	}
	if n := h.dialer.Counts(); n.Streams != 0 {
		t.Errorf("left open: %+v", n)
	}
}

func TestARequestThatWasNotLookedAtIsSentAgainWithItsFirstWords(t *testing.T) {
	h := newFakeHop(t)
	h.accept(func(r *raw) {
		for range 2 {
			stream, data := r.said()
			r.WriteRSTStream(stream, http2.ErrCodeRefusedStream)
			if data != "GET /" {
				t.Errorf("early data: %q", data)
			}
		}
		stream, data := r.said()
		r.headers(stream, ":status", "200")
		r.WriteData(stream, true, []byte("now "+data))
		io.Copy(io.Discard, r.conn)
	})
	app, _, done := h.join()
	if got, err := io.ReadAll(app); string(got) != "now GET /" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
	app.Close()
	if r := <-done; r.Err != nil || r.Sent != 5 {
		t.Errorf("%+v", r)
	}
}

// A hop that may have passed the first words on must not get them a second time.
func TestFirstWordsOfALostTunnelAreNotRepeated(t *testing.T) {
	h := newFakeHop(t)
	h.accept(func(r *raw) { // a connection that is in the pool already
		stream, _ := r.said()
		r.headers(stream, ":status", "200")
		if next, data := r.said(); next == stream || data != "GET /" {
			t.Errorf("second tunnel: stream %d, %q", next, data)
		}
	}, func(r *raw) {
		if f, err := r.ReadFrame(); err == nil {
			for ; err == nil; f, err = r.ReadFrame() {
				if f.Header().Type == http2.FrameData {
					t.Error("the first words were sent twice")
				}
			}
		}
	})
	_, opened, first := h.join()
	<-opened
	app, _, second := h.join()
	if got, err := io.ReadAll(app); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read %q, %v, want a reset", got, err)
	}
	for _, done := range []chan hbone.Result{first, second} {
		if r := <-done; !errors.Is(r.Err, syscall.ECONNRESET) {
			t.Errorf("%+v", r)
		}
	}
}

func TestAnAnswerThatDoesNotComeCanBeWaitedForInVain(t *testing.T) {
	h := newFakeHop(t)
	h.accept(func(r *raw) { io.Copy(io.Discard, r.conn) })
	s, err := h.dialer.Open(t.Context(), hop(h.l.Addr().String()), "10.0.0.9:80", nil)
	if err != nil {
		t.Fatal(err)
	}
	l := listen(t)
	defer l.Close()
	app, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	inside, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan hbone.Result, 1)
	go func() { done <- hbone.Join(ctx, inside, s) }()
	fmt.Fprint(app, "hello?")
	enough := errors.New("enough")
	cancel(enough)
	if r := <-done; !errors.Is(r.Err, enough) {
		t.Errorf("%+v", r)
	}
	if _, err := app.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read: %v, want a reset", err)
	}
	if n := h.dialer.Counts(); n.Streams != 0 {
		t.Errorf("left open: %+v", n)
	}
}
