package hbone

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/ambit-mesh/ambit/identity"
)

// key is what connections are shared by. Two hops with different expectations never share one.
type key struct {
	addr   netip.AddrPort
	from   netip.Addr
	own    identity.ID
	expect string
}

func keyOf(h Hop) key {
	ids := make([]string, len(h.Expect))
	for i, id := range h.Expect {
		ids[i] = id.String()
	}
	slices.Sort(ids)
	return key{h.Addr, h.From, h.Own, strings.Join(ids, " ")}
}

// pool holds the connections of a Dialer.
type pool struct {
	mu      sync.Mutex // guards below
	closed  bool
	open    map[key][]*carrier    // that take streams
	opening map[key][]*attempt    // handshakes under way
	alive   map[*carrier]struct{} // all, also those that take no more streams
}

// attempt is a handshake that several dials wait for.
type attempt struct {
	cancel  context.CancelFunc
	done    chan struct{}
	waiting int // dials; guarded by the pool's lock
	taken   int // streams promised
	c       *carrier
	err     error
}

// get promises a stream on a connection to hop: one that is open, one that is being opened, or else a new one. fresh
// says that the connection was opened for this dial.
func (p *pool) get(ctx context.Context, d *Dialer, hop Hop) (c *carrier, fresh bool, err error) {
	k := keyOf(hop)
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, false, &ConnectError{hop, net.ErrClosed}
	}
	for _, c := range p.open[k] {
		if c.promise() {
			p.mu.Unlock()
			return c, false, nil
		}
	}
	a := p.joinLocked(ctx, d, hop, k)
	p.mu.Unlock()
	select {
	case <-a.done:
		return a.c, true, a.err
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if a.waiting--; a.waiting == 0 {
		a.cancel() // nobody wants it any more
	}
	select {
	case <-a.done: // too late: give back the stream
		if a.c != nil {
			a.c.unpromise()
		}
	default:
		a.taken--
	}
	return nil, false, &ConnectError{hop, context.Cause(ctx)}
}

// joinLocked gives a handshake with room for one stream more, and starts one if there is none.
func (p *pool) joinLocked(ctx context.Context, d *Dialer, hop Hop, k key) *attempt {
	for _, a := range p.opening[k] {
		if a.taken < d.streams() && a.waiting > 0 {
			a.waiting++
			a.taken++
			return a
		}
	}
	// The handshake outlives the dial that started it, for the sake of others who wait.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	a := &attempt{cancel: cancel, done: make(chan struct{}), waiting: 1, taken: 1}
	if p.opening == nil {
		p.open, p.opening, p.alive = map[key][]*carrier{}, map[key][]*attempt{}, map[*carrier]struct{}{}
	}
	p.opening[k] = append(p.opening[k], a)
	d.wg.Go(func() {
		defer cancel()
		c, err := d.connect(work, hop)
		p.opened(k, a, c, err)
		if c != nil {
			c.run()
		}
	})
	return a
}

// opened ends a handshake.
func (p *pool) opened(k key, a *attempt, c *carrier, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.opening[k] = without(p.opening[k], a); len(p.opening[k]) == 0 {
		delete(p.opening, k)
	}
	a.c, a.err = c, err
	if c != nil {
		c.key, c.pending, c.changed = k, a.taken, p.changed
		p.alive[c] = struct{}{}
		p.open[k] = append(p.open[k], c)
		if p.closed {
			c.cut(net.ErrClosed)
		}
	}
	close(a.done)
}

// changed takes out a connection that takes no more streams, and forgets one that ended.
func (p *pool) changed(c *carrier) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open[c.key] = without(p.open[c.key], c); len(p.open[c.key]) == 0 {
		delete(p.open, c.key)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		delete(p.alive, c)
	}
}

// close takes no more dials, and gives the connections that are left.
func (p *pool) close() []*carrier {
	p.mu.Lock()
	p.closed = true
	for _, as := range p.opening {
		for _, a := range as {
			a.cancel()
		}
	}
	p.mu.Unlock()
	return p.all()
}

func (p *pool) all() []*carrier {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []*carrier
	for c := range p.alive {
		all = append(all, c)
	}
	return all
}

// promise reserves a stream.
func (c *carrier) promise() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil || c.ending || c.eng.Room()-c.pending <= 0 {
		return false
	}
	c.pending++
	return true
}

func (c *carrier) unpromise() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending--
}

func without[T comparable](all []T, x T) []T {
	return slices.DeleteFunc(slices.Clone(all), func(y T) bool { return y == x })
}
