package dns

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/ambit-mesh/ambit/linux/netns"
)

// Hosts resolves the host names of endpoints that the control plane gives no address of. It remembers answers for as
// long as they say.
type Hosts struct {
	conf Config

	mu    sync.Mutex // guards known
	known map[string]*host
}

// host is a name, while it is looked up and after.
type host struct {
	done  chan struct{} // closed once the rest is there
	addrs []netip.Addr
	err   error
	until time.Time
}

const (
	maxHosts = 1024
	// Answers are believed for that long at least, so that a connection costs no query, and at most, so that a wrong
	// one does not stay.
	minTTL, maxTTL = time.Second, 5 * time.Minute
)

// NewHosts makes one for the pods of a node.
func NewHosts(c Config) *Hosts { return &Hosts{conf: c.defaults(), known: map[string]*host{}} }

// Lookup gives the addresses of a host, asking from inside a pod if it has to ask.
func (h *Hosts) Lookup(ctx context.Context, ns *netns.Namespace, name string) ([]netip.Addr, error) {
	x, mine := h.find(name)
	if mine {
		x.addrs, x.until, x.err = h.resolve(context.WithoutCancel(ctx), ns, name) // others wait for it too
		close(x.done)
	}
	select {
	case <-x.done:
		return x.addrs, x.err
	case <-ctx.Done():
		return nil, fmt.Errorf("look up %s: %w", name, context.Cause(ctx))
	}
}

// find gives what is known of a name, or what the caller now has to find out.
func (h *Hosts) find(name string) (x *host, mine bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if x = h.known[name]; x != nil && !x.old(now) {
		return x, false
	}
	if len(h.known) >= maxHosts {
		for k, v := range h.known {
			if v.old(now) || len(h.known) >= maxHosts {
				delete(h.known, k)
			}
		}
	}
	x = &host{done: make(chan struct{})}
	h.known[name] = x
	return x, true
}

func (x *host) old(now time.Time) bool {
	select {
	case <-x.done:
		return now.After(x.until)
	default:
		return false
	}
}

// resolve asks for both families at once.
func (h *Hosts) resolve(ctx context.Context, ns *netns.Namespace, name string) (addrs []netip.Addr, until time.Time, err error) {
	r := &resolver{ns: ns, servers: h.conf.Resolvers, patience: h.conf.Patience, oneTry: h.conf.OneTry}
	types := []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA}
	found, ttls, errs := make([][]netip.Addr, len(types)), make([]time.Duration, len(types)), make([]error, len(types))
	var wg sync.WaitGroup
	for i, t := range types {
		wg.Go(func() { found[i], ttls[i], errs[i] = r.addresses(ctx, name, t) })
	}
	wg.Wait()
	ttl := maxTTL
	for i := range types {
		addrs = append(addrs, found[i]...)
		if len(found[i]) > 0 {
			ttl = min(ttl, max(ttls[i], minTTL))
		}
	}
	if len(addrs) > 0 {
		return addrs, time.Now().Add(ttl), nil
	}
	if err = errors.Join(errs...); err == nil {
		err = errors.New("it has no address")
	}
	return nil, time.Now().Add(minTTL), fmt.Errorf("look up %s: %w", name, err)
}

// addresses asks for one family; an answer that is cut is asked for again over TCP.
func (r *resolver) addresses(ctx context.Context, name string, t dnsmessage.Type) ([]netip.Addr, time.Duration, error) {
	full, err := dnsmessage.NewName(name + ".")
	if err != nil {
		return nil, 0, fmt.Errorf("host name %q: %w", name, err)
	}
	q := query{header: dnsmessage.Header{ID: uint16(rand.Uint32()), RecursionDesired: true}, question: dnsmessage.Question{Name: full, Type: t, Class: dnsmessage.ClassINET}}
	m := dnsmessage.Message{Header: q.header, Questions: []dnsmessage.Question{q.question}}
	if q.raw, err = m.Pack(); err != nil {
		return nil, 0, fmt.Errorf("host name %q: %w", name, err)
	}
	for _, via := range []protocol{udp, tcp} {
		raw, err := r.ask(ctx, q, via)
		if err != nil {
			return nil, 0, err
		}
		addrs, ttl, cut, err := readAddresses(raw)
		if !cut || err != nil {
			return addrs, ttl, err
		}
	}
	return nil, 0, errors.New("the answer is cut, over TCP too")
}

// readAddresses reads the addresses of an answer, and how long they hold.
func readAddresses(raw []byte) (addrs []netip.Addr, ttl time.Duration, cut bool, err error) {
	var p dnsmessage.Parser
	head, err := p.Start(raw)
	if err != nil {
		return nil, 0, false, fmt.Errorf("answer: %w", err)
	}
	if head.RCode != dnsmessage.RCodeSuccess {
		return nil, 0, false, fmt.Errorf("answer is %s", head.RCode)
	}
	if err := p.SkipAllQuestions(); err != nil {
		return nil, 0, head.Truncated, fmt.Errorf("answer: %w", err)
	}
	ttl = maxTTL
	for {
		h, err := p.AnswerHeader()
		if err != nil {
			break // the end, or what cannot be read: what could be is an answer
		}
		ttl = min(ttl, time.Duration(h.TTL)*time.Second)
		var bad error
		switch h.Type {
		case dnsmessage.TypeA:
			var r dnsmessage.AResource
			if r, bad = p.AResource(); bad == nil {
				addrs = append(addrs, netip.AddrFrom4(r.A))
			}
		case dnsmessage.TypeAAAA:
			var r dnsmessage.AAAAResource
			if r, bad = p.AAAAResource(); bad == nil {
				addrs = append(addrs, netip.AddrFrom16(r.AAAA).Unmap())
			}
		default:
			bad = p.SkipAnswer()
		}
		if bad != nil {
			break // the parser stays at what it cannot read
		}
	}
	return addrs, ttl, head.Truncated && len(addrs) == 0, nil
}
