package upstream

import (
	"cmp"
	"log/slog"
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
	lane   *lane
	health *health
}

// cluster is a backend with its endpoints. It is never written after it is made, but for its state.
type cluster struct {
	*l7.Backend
	secret *l7.Secret // of its TLS; nil without, or while it has not come
	tiers  []tier     // of the healthy ones, the preferred first
	state  *state
}

// Upstreams holds the clusters in force and the lanes to their endpoints.
type Upstreams struct {
	dial Dial
	log  *slog.Logger

	mu       sync.RWMutex        // guards below
	clusters map[string]*cluster // values immutable
	lanes    map[Target]*lane
}

// New makes an empty set of upstreams that connect by dial.
func New(dial Dial, log *slog.Logger) *Upstreams {
	return &Upstreams{dial: dial, log: log, clusters: map[string]*cluster{}, lanes: map[Target]*lane{}}
}

// Update takes over the backends of a table, before requests are matched by it. Lanes to targets that are still there are kept.
func (u *Upstreams) Update(t *table.Table) {
	u.mu.Lock()
	lanes := make(map[Target]*lane, len(u.lanes))
	clusters := make(map[string]*cluster, len(t.Backends))
	for name, b := range t.Backends {
		old, secret := u.clusters[name], t.Secrets[b.GetTls().GetSecret()]
		if old != nil && old.Backend == b && old.secret == secret {
			clusters[name] = old
			for _, tier := range old.tiers {
				for _, e := range tier.endpoints {
					lanes[e.lane.target] = e.lane
				}
			}
			continue
		}
		s := newState(u.log)
		if old != nil {
			s = old.state
		}
		clusters[name] = newCluster(b, secret, s, func(w way) *lane {
			l := lanes[w.target]
			if l == nil {
				if l = u.lanes[w.target]; l == nil {
					l = newLane(w, u.dial)
				}
				lanes[w.target] = l
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

func newCluster(b *l7.Backend, secret *l7.Secret, s *state, laneTo func(way) *lane) *cluster {
	c := &cluster{Backend: b, secret: secret, state: s}
	byPriority := map[uint32]*tier{}
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := map[Target]*health{}
	for _, e := range b.GetEndpoints() {
		w, ok := wayTo(b, e, secret)
		if !ok || e.GetHealth() != l7.Health_HEALTHY {
			continue
		}
		h := s.health[w.target]
		if h == nil {
			h = &health{}
		}
		kept[w.target] = h
		t := byPriority[e.GetPriority()]
		if t == nil {
			t = &tier{}
			byPriority[e.GetPriority()] = t
		}
		t.endpoints = append(t.endpoints, endpoint{e, laneTo(w), h})
		t.total += uint64(weight(e))
	}
	s.health = kept
	order := make([]uint32, 0, len(byPriority))
	for p := range byPriority {
		order = append(order, p)
	}
	slices.SortFunc(order, cmp.Compare[uint32])
	for _, p := range order {
		c.tiers = append(c.tiers, *byPriority[p])
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
	return newCluster(matched, nil, newState(u.log), func(w way) *lane {
		l := newLane(w, u.dial)
		l.retire()
		return l
	})
}

// wayTo says how to reach an endpoint. A tunnel to nobody in particular is no way: an endpoint without a readable
// identity is left out, rather than trusted; so is one outside the mesh where the rule asks for identities of the mesh.
func wayTo(b *l7.Backend, e *l7.Endpoint, secret *l7.Secret) (way, bool) {
	w := way{limits: b.GetLimits(), tls: b.GetTls(), secret: secret, name: b.GetHostname()}
	w.target = Target{
		Addr:   net.JoinHostPort(e.GetAddress(), strconv.Itoa(int(e.GetPort()))),
		Tunnel: e.GetTunnel() != l7.Tunnel_NONE, HTTP2: b.GetProtocol() == l7.AppProtocol_HTTP2, settings: w.settings(),
	}
	if !w.target.Tunnel {
		return w, !b.GetTls().GetMesh()
	}
	id, err := identity.Parse(e.GetIdentity())
	if err != nil {
		return w, false
	}
	w.target.Identity = id
	return w, true
}

func weight(e *l7.Endpoint) uint32 { return max(e.GetWeight(), 1) }
