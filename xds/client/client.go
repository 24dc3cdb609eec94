// Package client subscribes to resources over incremental discovery and keeps them while the server is away.
package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/ambit-mesh/ambit/api/discovery"
	"github.com/ambit-mesh/ambit/xds/delta"
)

// Config of a Client.
type Config struct {
	// Address of the server, host:port.
	Address string
	// TLS makes the configuration for each new connection, so that roots are read again.
	TLS func() (*tls.Config, error)
	// Token gives the bearer token for each new stream; nil sends none.
	Token func() (string, error)
	// ClusterID is sent as metadata clusterid. Empty sends none.
	ClusterID string
	// Node introduces us on the first request of each stream.
	Node *discovery.Node
	// Handlers take in one type each.
	Handlers []Handler
	// DialOptions are added to our own, for tests.
	DialOptions []grpc.DialOption
	// Message is told of each response, with its size in bytes; Ended of each stream's end. Both may be nil.
	Message func(typeURL string, bytes int)
	Ended   func(reason string)
	Log     *slog.Logger
}

// Backoff between streams, of Istio's proxies.
const (
	backoffMin = 10 * time.Millisecond
	backoffMax = 15 * time.Second
)

// maxMessage bounds one response: a large mesh in one snapshot is tens of megabytes.
const maxMessage = 512 << 20

// Client keeps one stream open and resumes it when it breaks.
type Client struct {
	conf   Config
	states map[string]*state
	wake   chan struct{}
}

// state is one type's machine; mu also covers its handler's subscriptions.
type state struct {
	Handler
	mu      sync.Mutex // guards machine
	machine *delta.Client
	synced  chan struct{}
	once    sync.Once
}

// New makes a client; Run connects it.
func New(conf Config) *Client {
	c := &Client{conf: conf, states: map[string]*state{}, wake: make(chan struct{}, 1)}
	for _, h := range conf.Handlers {
		c.states[h.TypeURL] = &state{Handler: h, machine: delta.NewClient(h.TypeURL, h.OnDemand), synced: make(chan struct{})}
	}
	return c
}

// Synced is closed after the first response of a type.
func (c *Client) Synced(typeURL string) <-chan struct{} { return c.states[typeURL].synced }

// Subscribe asks for resources of an on-demand type by name or alias.
func (c *Client) Subscribe(typeURL string, names ...string) {
	c.change(typeURL, func(m *delta.Client) { m.Subscribe(names...) })
}

// Unsubscribe takes Subscribe back. What was received stays until the server says that it is gone.
func (c *Client) Unsubscribe(typeURL string, names ...string) {
	c.change(typeURL, func(m *delta.Client) { m.Unsubscribe(names...) })
}

func (c *Client) change(typeURL string, f func(*delta.Client)) {
	st := c.states[typeURL]
	st.mu.Lock()
	f(st.machine)
	st.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Run keeps the stream until ctx ends. Losing the server is no error: what was received stays in force.
func (c *Client) Run(ctx context.Context) error {
	backoff := backoffMin
	for {
		began := time.Now()
		healthy, err := c.stream(ctx)
		if ctx.Err() != nil {
			return nil
		}
		// A server that answers and then fails at once must not be asked a hundred times a second.
		if healthy && time.Since(began) > backoff {
			backoff = backoffMin
		}
		if c.conf.Ended != nil {
			c.conf.Ended(reason(healthy, err))
		}
		c.conf.Log.Warn("xds stream ended, will retry", "server", c.conf.Address, "error", err, "after", time.Since(began).Round(time.Millisecond), "retry", backoff)
		t := time.NewTimer(backoff/2 + rand.N(backoff/2+1))
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
		backoff = min(backoff*2, backoffMax)
	}
}

// reason sorts a stream's end for metrics, in Istio's words: ConnectionError before the first response, Complete when
// the server ended it in order, else Error.
func reason(healthy bool, err error) string {
	switch {
	case err == nil, errors.Is(err, io.EOF):
		return "Complete"
	case !healthy:
		return "ConnectionError"
	default:
		return "Error"
	}
}

// stream runs one connection with one stream. healthy tells whether any response came.
func (c *Client) stream(ctx context.Context) (healthy bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := c.dial()
	if err != nil {
		return false, err
	}
	defer conn.Close()
	ctx, err = c.introduce(ctx)
	if err != nil {
		return false, err
	}
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{StreamName: "DeltaAggregatedResources", ServerStreams: true, ClientStreams: true},
		"/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources")
	if err != nil {
		return false, err
	}
	for _, st := range c.states {
		st.mu.Lock()
		st.machine.Reset()
		st.mu.Unlock()
	}
	responses, ended := make(chan *delta.Response), make(chan error, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { ended <- receive(ctx, s, responses) })

	first := true
	for {
		if err := c.say(s, &first); err != nil {
			if errors.Is(err, io.EOF) { // the stream has ended: the reason comes with the receiving side
				err = reasonOf(ctx, responses, ended)
			}
			return healthy, err
		}
		select {
		case <-ctx.Done():
			return healthy, ctx.Err()
		case err := <-ended:
			return healthy, err
		case <-c.wake:
		case r := <-responses:
			healthy = true
			if err := c.take(r); err != nil {
				return healthy, err
			}
		}
	}
}

// reasonOf waits for the end of a stream that takes no more requests; what it still brings is brought again by the next.
func reasonOf(ctx context.Context, responses <-chan *delta.Response, ended <-chan error) error {
	for {
		select {
		case <-responses:
		case err := <-ended:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func receive(ctx context.Context, s grpc.ClientStream, to chan<- *delta.Response) error {
	for {
		r := &delta.Response{}
		if err := s.RecvMsg(r); err != nil {
			return err
		}
		select {
		case to <- r:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// say sends what every machine has to say; the node goes with the first message of a stream.
func (c *Client) say(s grpc.ClientStream, first *bool) error {
	for _, h := range c.conf.Handlers {
		st := c.states[h.TypeURL]
		for {
			st.mu.Lock()
			r := st.machine.Next()
			st.mu.Unlock()
			if r == nil {
				break
			}
			if *first {
				r.Node, *first = c.conf.Node, false
			}
			if err := s.SendMsg(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// take hands a response to its handler and answers it.
func (c *Client) take(r *delta.Response) error {
	st, ok := c.states[r.GetTypeUrl()]
	if !ok {
		return fmt.Errorf("server sent %q, which nobody asked for", r.GetTypeUrl())
	}
	if c.conf.Message != nil {
		n := 0
		for _, res := range r.GetResources() {
			n += len(res.GetResource().GetValue())
		}
		c.conf.Message(r.GetTypeUrl(), n)
	}
	st.mu.Lock()
	upserts, removes := st.machine.Receive(r)
	st.mu.Unlock()
	refused, err := st.apply(upserts, removes)
	st.mu.Lock()
	if err != nil {
		c.conf.Log.Warn("xds resources refused", "type", r.GetTypeUrl(), "error", err)
		st.machine.Nack(r.GetNonce(), err.Error(), refused...)
	} else {
		st.machine.Ack(r.GetNonce())
	}
	st.mu.Unlock()
	st.once.Do(func() { close(st.synced) })
	return nil
}
