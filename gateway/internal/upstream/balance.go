package upstream

import (
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"

	"github.com/ambit-mesh/ambit/api/l7"
	"github.com/ambit-mesh/ambit/gateway/internal/table"
	"github.com/ambit-mesh/ambit/identity"
)

// endpoint is one place that serves a backend.
type endpoint struct {
	*l7.Endpoint
	lane *lane
}

// cluster is a backend with its endpoints. It is never written after it is made.
type cluster struct {
	*l7.Backend
	endpoints []endpoint // the healthy ones
	total     uint64     // sum of the weights
}

// Upstreams holds the clusters in force and the lanes to their endpoints.
type Upstreams struct {
	dial Dial

	mu       sync.RWMutex        // guards below
	clusters map[string]*cluster // values immutable
	lanes    map[Target]*lane
}

// New makes an empty set of upstreams that connect by dial.
func New(dial Dial) *Upstreams {
	return &Upstreams{dial: dial, clusters: map[string]*cluster{}, lanes: map[Target]*lane{}}
}

// Update takes over the backends of a table, before requests are matched by it. Lanes to targets that are still there are kept.
func (u *Upstreams) Update(t *table.Table) {
	u.mu.Lock()
	lanes := make(map[Target]*lane, len(u.lanes))
	clusters := make(map[string]*cluster, len(t.Backends))
	for name, b := range t.Backends {
		if old := u.clusters[name]; old != nil && old.Backend == b {
			clusters[name] = old
			for _, e := range old.endpoints {
				lanes[e.lane.target] = e.lane
			}
			continue
		}
		clusters[name] = newCluster(b, func(target Target) *lane {
			l := lanes[target]
			if l == nil {
				if l = u.lanes[target]; l == nil {
					l = newLane(target, u.dial)
				}
				lanes[target] = l
			}
			return l
		})
	}
	var gone []*lane
	for target, l := range u.lanes {
		if lanes[target] == nil {
			gone = append(gone, l)
		}
	}
	u.clusters, u.lanes = clusters, lanes
	u.mu.Unlock()
	for _, l := range gone {
		l.retire()
	}
}

// Close retires every lane.
func (u *Upstreams) Close() { u.Update(&table.Table{}) }

func newCluster(b *l7.Backend, laneTo func(Target) *lane) *cluster {
	c := &cluster{Backend: b}
	for _, e := range b.GetEndpoints() {
		target, ok := targetOf(b, e)
		if !ok || e.GetHealth() != l7.Health_HEALTHY {
			continue
		}
		c.endpoints = append(c.endpoints, endpoint{e, laneTo(target)})
		c.total += uint64(weight(e))
	}
	return c
}

// cluster is the one in force under a name. A request that was matched by a table of before, and whose backend is gone
// since, is served by that backend as it was, over connections that nobody else uses.
func (u *Upstreams) cluster(name string, matched *l7.Backend) *cluster {
	u.mu.RLock()
	c := u.clusters[name]
	u.mu.RUnlock()
	if c != nil || matched == nil {
		return c
	}
	return newCluster(matched, func(t Target) *lane {
		l := newLane(t, u.dial)
		l.retire()
		return l
	})
}

// targetOf says how to reach an endpoint. A tunnel to nobody in particular is no way: an endpoint without a readable
// identity is left out, rather than trusted.
func targetOf(b *l7.Backend, e *l7.Endpoint) (Target, bool) {
	t := Target{
		Addr:   net.JoinHostPort(e.GetAddress(), strconv.Itoa(int(e.GetPort()))),
		Tunnel: e.GetTunnel() != l7.Tunnel_NONE, HTTP2: b.GetProtocol() == l7.AppProtocol_HTTP2,
	}
	if !t.Tunnel {
		return t, true
	}
	id, err := identity.Parse(e.GetIdentity())
	if err != nil {
		return t, false
	}
	t.Identity = id
	return t, true
}

func weight(e *l7.Endpoint) uint32 { return max(e.GetWeight(), 1) }

// pick chooses among two random endpoints the one with fewer requests for its weight (Istio's default, least request).
// Endpoints in tried are avoided while there are others.
func (c *cluster) pick(tried []*l7.Endpoint) (endpoint, bool) {
	if len(c.endpoints) == 0 {
		return endpoint{}, false
	}
	if len(tried) > 0 && len(tried) < len(c.endpoints) {
		start := rand.IntN(len(c.endpoints))
		for i := range c.endpoints {
			if e := c.endpoints[(start+i)%len(c.endpoints)]; !slices.Contains(tried, e.Endpoint) {
				return e, true
			}
		}
	}
	a, b := c.random(), c.random()
	if load(b) < load(a) {
		return b, true
	}
	return a, true
}

func load(e endpoint) float64 { return float64(e.lane.active.Load()+1) / float64(weight(e.Endpoint)) }

func (c *cluster) random() endpoint {
	n := rand.Uint64N(c.total)
	for _, e := range c.endpoints {
		w := uint64(weight(e.Endpoint))
		if n < w {
			return e
		}
		n -= w
	}
	return c.endpoints[0]
}
