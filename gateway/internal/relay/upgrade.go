package relay

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/ambit-mesh/ambit/gateway/internal/access"
	"github.com/ambit-mesh/ambit/gateway/internal/filter"
)

// counter counts what is read of a request's body and keeps the error that ended it.
type counter struct {
	io.ReadCloser
	n    atomic.Int64
	grpc bool

	mu       sync.Mutex // guards below
	err      error
	messages messages
}

// seen is how many messages of gRPC were read.
func (c *counter) seen() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.messages.n
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n.Add(int64(n))
	if c.grpc {
		c.mu.Lock()
		c.messages.see(p[:n])
		c.mu.Unlock()
	}
	if err != nil && err != io.EOF {
		c.mu.Lock()
		c.err = err
		c.mu.Unlock()
	}
	return n, err
}

// malformed reports whether the body's own framing was broken, so that the failure is the client's.
func malformed(c *counter) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	var r interface {
		error
		Malformed() bool
	}
	return errors.As(c.err, &r) && r.Malformed()
}

func badUpgrade(why string) error {
	return &filter.Failure{
		Status: http.StatusBadGateway, Flags: []string{"UPE"}, Details: "upgrade_failed",
		Body: "upstream connect error or disconnect/reset before headers. reset reason: protocol error", Cause: errors.New(why),
	}
}

// upgrade forwards a request for a WebSocket. Bytes flow freely only after a proper 101 from the backend; any other
// answer is an ordinary response.
func (p *Relay) upgrade(w http.ResponseWriter, x *filter.Exchange) (*http.Response, error) {
	x.Request.Header.Set("Connection", "Upgrade")
	x.Request.Header.Set("Upgrade", "websocket")
	// Unless there is a switch, what the client sent behind its request was for the other protocol: it is not read as
	// a request.
	w.Header().Set("Connection", "close")
	resp, err := p.Chain.Serve(x)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		return resp, err
	}
	back, ok := resp.Body.(io.ReadWriteCloser)
	if !ok || !strings.EqualFold(resp.Header.Get("Upgrade"), "websocket") {
		resp.Body.Close()
		return nil, badUpgrade("the backend answered 101 without switching to what was asked for")
	}
	defer back.Close()
	key := resp.Header["Upgrade"]
	stripHop(resp.Header)
	h := w.Header()
	for name, v := range resp.Header {
		h[name] = v
	}
	h["Upgrade"], h["Connection"] = key, []string{"Upgrade"}
	h.Set("Server", "istio-envoy")
	hijacker, ok := w.(http.Hijacker)
	if !ok {
		return nil, badUpgrade("the connection cannot be handed over")
	}
	w.WriteHeader(http.StatusSwitchingProtocols)
	x.Record.Status = http.StatusSwitchingProtocols
	if err := http.NewResponseController(w).Flush(); err != nil {
		return nil, &filter.Failure{Flags: []string{access.DownstreamTerminated}, Details: "downstream_remote_disconnect", Cause: err}
	}
	front, rw, err := hijacker.Hijack()
	if err != nil {
		return nil, &filter.Failure{Flags: []string{access.DownstreamTerminated}, Details: "downstream_remote_disconnect", Cause: err}
	}
	defer front.Close()
	var up atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() {
		n, err := io.Copy(back, rw.Reader)
		up.Store(n)
		if c, ok := back.(interface{ CloseWrite() error }); ok && err == nil {
			c.CloseWrite() //nolint:errcheck // the other direction shows a broken connection
		} else {
			back.Close()
		}
	})
	down, err := io.Copy(front, back)
	if c, ok := front.(interface{ CloseWrite() error }); ok && err == nil {
		c.CloseWrite() //nolint:errcheck // as above
	} else {
		front.Close()
	}
	wg.Wait()
	x.Record.BytesReceived, x.Record.BytesSent = up.Load(), down
	return nil, errHijacked
}

// errHijacked ends a request whose connection was handed over: nothing more is written.
var errHijacked = errors.New("the connection was handed over")
