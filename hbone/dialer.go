package hbone

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/hbone/internal/h2"
	"github.com/ambit-mesh/ambit/identity/mtls"
	"github.com/ambit-mesh/ambit/identity/svid"
)

// Dialer opens tunnels. Tunnels of one source, one hop and the same identities share a connection.
type Dialer struct {
	// Source has the certificates of those for whom tunnels are opened.
	Source svid.Source
	// Roots vouch for the hops.
	Roots svid.Roots
	// DialTCP opens a socket to a hop. Default: as the net package does, from hop.From if that is set.
	DialTCP func(context.Context, Hop) (net.Conn, error)
	// ConnectTimeout bounds DialTCP. Default 10s.
	ConnectTimeout time.Duration
	// Groups are the key exchanges to offer. Default: those of crypto/tls.
	Groups []tls.CurveID
	// Streams is how many tunnels share a connection at most. Default 100.
	Streams int
	// Grace is how long tunnels may finish after the end of Run's context. Default 20s.
	Grace time.Duration

	bufs  buffers
	conns pool
	wg    sync.WaitGroup // carriers and handshakes
}

// attempts is how often a tunnel is tried that a connection could not take: it went away, or was full.
const attempts = 4

// Dial opens a tunnel to authority through hop, and waits for the hop's answer. The error is a ConnectError, TLSError,
// HandshakeError, StatusError or ResetError if one of these is the reason.
func (d *Dialer) Dial(ctx context.Context, hop Hop, authority string, h http.Header) (*Stream, error) {
	fields, err := request(authority, h)
	if err != nil {
		return nil, err
	}
	for n := 1; ; n++ {
		s, fresh, err := d.begin(ctx, hop, authority, fields, false)
		if err == nil {
			err = s.answered(ctx, hop)
		}
		if err == nil {
			return s, nil
		}
		if again := tryAgain(err, fresh); !again || n == attempts || ctx.Err() != nil {
			return nil, tunnelError(authority, err)
		}
	}
}

// request checks what a tunnel is asked for with.
func request(authority string, h http.Header) ([]h2.Field, error) {
	if err := CheckAuthority(authority); err != nil {
		return nil, err
	}
	fields, err := toFields(h)
	if err != nil {
		return nil, tunnelError(authority, err)
	}
	return fields, nil
}

func tunnelError(authority string, err error) error {
	switch err.(type) {
	case *ConnectError, *TLSError:
		return err // there was no connection to begin with
	}
	return fmt.Errorf("tunnel to %s: %w", authority, err)
}

// begin asks for a tunnel on a connection to hop. fresh says that the connection was opened for it; hold, that what follows
// on the stream, or its flush, sends the request.
func (d *Dialer) begin(ctx context.Context, hop Hop, authority string, fields []h2.Field, hold bool) (s *Stream, fresh bool, err error) {
	c, fresh, err := d.conns.get(ctx, d, hop)
	if err != nil {
		return nil, fresh, err
	}
	s, err = c.begin(hop, authority, fields, hold)
	return s, fresh, err
}

// tryAgain reports whether the hop has not looked at the request: it may be sent once more.
func tryAgain(err error, fresh bool) bool {
	if _, ok := errors.AsType[h2.NoRoom](err); ok {
		return true
	}
	if e, ok := errors.AsType[*ResetError](err); ok {
		return e.Code == h2.RefusedStream.String()
	}
	_, lost := errors.AsType[*lostError](err)
	return lost && !fresh // the connection had died unnoticed
}

// begin opens a stream that get has promised.
func (c *carrier) begin(hop Hop, authority string, fields []h2.Field, hold bool) (*Stream, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending--
	if c.err != nil {
		return nil, c.whyLocked(hop, &lostError{c.err})
	}
	id, err := c.eng.Open(authority, fields)
	if broken, ok := errors.AsType[*h2.Error](err); ok {
		return nil, c.whyLocked(hop, &lostError{broken})
	}
	if err != nil {
		return nil, err
	}
	s := c.addLocked(id)
	if !hold {
		c.flushLocked()
	}
	return s, nil
}

// answered waits for the answer to a stream that we opened: nil if it is a tunnel now.
func (s *Stream) answered(ctx context.Context, hop Hop) error {
	c := s.c
	defer context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		s.canRead.Broadcast()
	})()
	c.mu.Lock()
	defer c.mu.Unlock()
	for s.status == 0 && s.err == nil && ctx.Err() == nil {
		s.canRead.Wait()
	}
	switch {
	case s.stands():
		return nil
	case s.status != 0:
		c.discardLocked(s)
		return &StatusError{Code: s.status, Header: s.header}
	case s.err != nil:
		return c.whyLocked(hop, s.err)
	}
	c.discardLocked(s)
	return context.Cause(ctx)
}

func (c *carrier) discardLocked(s *Stream) {
	if s.err == nil && !(s.ended && s.sentEnd) {
		s.abortLocked(h2.Cancel, "")
	}
	s.closed = true
	s.dropLocked()
}

// whyLocked tells a connection that never stood from one that was lost. In TLS 1.3 the server judges our certificate
// when our side of the handshake is over, so its refusal comes as the first thing that is read.
func (c *carrier) whyLocked(hop Hop, err error) error {
	lost, ok := errors.AsType[*lostError](err)
	if !ok || c.eng.Settled() {
		return err
	}
	if op, ok := errors.AsType[*net.OpError](lost.err); ok && op.Op == "remote error" {
		return &TLSError{hop, lost.err}
	}
	return &HandshakeError{hop, lost.err}
}

// connect makes a connection to a hop.
func (d *Dialer) connect(ctx context.Context, hop Hop) (*carrier, error) {
	timeout := d.ConnectTimeout
	if timeout == 0 {
		timeout = handshakeTimeout
	}
	dial, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	open := d.DialTCP
	if open == nil {
		open = dialTCP
	}
	conn, err := open(dial, hop)
	if err != nil {
		return nil, &ConnectError{hop, err}
	}
	shaking, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	conf := mtls.Client(hop.Own, d.Source, d.Roots, mtls.OneOf(hop.Expect...))
	conf.CurvePreferences = d.Groups
	end, err := shake(shaking, conn, &d.bufs, conf, true)
	if err != nil {
		_ = conn.Close() // it never stood
		return nil, &TLSError{hop, err}
	}
	return newCarrier(end, &d.bufs, engineConfig(false, d.streams())), nil
}

func (d *Dialer) streams() int {
	if d.Streams == 0 {
		return clientStreams
	}
	return d.Streams
}

func dialTCP(ctx context.Context, hop Hop) (net.Conn, error) {
	var nd net.Dialer
	nd.SetMultipathTCP(false)
	if hop.From.IsValid() {
		nd.LocalAddr = &net.TCPAddr{IP: hop.From.AsSlice()}
	}
	return nd.DialContext(ctx, "tcp", hop.Addr.String())
}

// Run waits for the end of ctx, then drains: no more tunnels, those that are open may finish for the time of Grace.
func (d *Dialer) Run(ctx context.Context) error {
	<-ctx.Done()
	done := make(chan struct{})
	for _, c := range d.conns.close() {
		c.drain()
	}
	go func() { d.wg.Wait(); close(done) }()
	grace := d.Grace
	if grace == 0 {
		grace = defaultGrace
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		for _, c := range d.conns.close() {
			c.cut(errCut)
		}
		<-done
	}
	return nil
}

// Close cuts all tunnels and waits for the end of all that the Dialer started.
func (d *Dialer) Close() error {
	for _, c := range d.conns.close() {
		c.cut(net.ErrClosed)
	}
	d.wg.Wait()
	return nil
}

// Counts is what a Dialer holds open.
type Counts struct{ Connections, Streams int }

// Counts counts.
func (d *Dialer) Counts() Counts {
	var n Counts
	for _, c := range d.conns.all() {
		c.mu.Lock()
		n.Connections, n.Streams = n.Connections+1, n.Streams+len(c.streams)
		c.mu.Unlock()
	}
	return n
}
