package upstream

import (
	"crypto/sha256"
	"encoding/hex"
	"math"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/ambit-mesh/ambit/api/l7"
	"github.com/ambit-mesh/ambit/gateway/internal/filter"
)

// tier is the endpoints of one priority.
type tier struct {
	endpoints []endpoint
	total     uint64 // sum of the weights
}

// choice is what one request brings to the choice of its endpoints.
type choice struct {
	key    uint64 // of a consistent hash
	hashed bool
	tried  []*l7.Endpoint
}

// pick chooses an endpoint. One that was tried, or that is ejected, is left out while there are others.
func (c *cluster) pick(x *choice, now time.Time) (endpoint, bool) {
	t, ok := c.tier(now)
	if !ok {
		return endpoint{}, false
	}
	if len(x.tried) > 0 {
		fresh := without(t, func(e endpoint) bool { return slices.Contains(x.tried, e.Endpoint) })
		if len(fresh.endpoints) > 0 {
			t = fresh
		}
	}
	var e endpoint
	switch kind := c.GetBalancer().GetKind(); {
	case kind == l7.LoadBalancer_CONSISTENT_HASH && x.hashed:
		e = t.nearest(x.key)
	case kind == l7.LoadBalancer_ROUND_ROBIN:
		e = t.next(c.state)
	case kind == l7.LoadBalancer_RANDOM, kind == l7.LoadBalancer_CONSISTENT_HASH:
		e = t.random()
	default:
		e = t.idler()
	}
	x.tried = append(x.tried, e.Endpoint)
	return e, true
}

// tier is the endpoints to choose among. As long as fewer than 5/7 of a tier are well, a part of the requests that grows
// with those missing goes to the next one (Envoy's factor of 1.4).
func (c *cluster) tier(now time.Time) (tier, bool) {
	if c.GetOutliers() == nil {
		return c.first()
	}
	var last tier
	all, well := 0, 0
	draw := rand.Float64()
	for _, t := range c.tiers {
		have := without(t, func(e endpoint) bool { return e.health.out(now) })
		all, well = all+len(t.endpoints), well+len(have.endpoints)
		if len(have.endpoints) == 0 {
			continue
		}
		last = have
		if draw -= min(1, 1.4*float64(len(have.endpoints))/float64(len(t.endpoints))); draw < 0 {
			return have, true
		}
	}
	if all > 0 && well*100 < int(c.GetOutliers().GetMinHealthPercent())*all {
		return c.first() // too few are left to carry the load of all
	}
	return last, len(last.endpoints) > 0
}

func (c *cluster) first() (tier, bool) {
	if len(c.tiers) == 0 {
		return tier{}, false
	}
	return c.tiers[0], true
}

func without(t tier, leave func(endpoint) bool) tier {
	if !slices.ContainsFunc(t.endpoints, leave) {
		return t
	}
	var out tier
	for _, e := range t.endpoints {
		if !leave(e) {
			out.endpoints = append(out.endpoints, e)
			out.total += uint64(weight(e.Endpoint))
		}
	}
	return out
}

// idler chooses among two random endpoints the one with fewer requests for its weight.
func (t tier) idler() endpoint {
	a, b := t.random(), t.random()
	if load(b) < load(a) {
		return b
	}
	return a
}

func load(e endpoint) float64 { return float64(e.lane.active.Load()+1) / float64(weight(e.Endpoint)) }

func (t tier) random() endpoint {
	n := rand.Uint64N(t.total)
	for _, e := range t.endpoints {
		w := uint64(weight(e.Endpoint))
		if n < w {
			return e
		}
		n -= w
	}
	return t.endpoints[0]
}

// next goes round, and spreads the turns of heavier endpoints among those of the others.
func (t tier) next(s *state) endpoint {
	if t.total == uint64(len(t.endpoints))*uint64(weight(t.endpoints[0].Endpoint)) && even(t) {
		return t.endpoints[(s.turn.Add(1)-1)%uint64(len(t.endpoints))]
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	best := 0
	for i, e := range t.endpoints {
		e.health.current += int64(weight(e.Endpoint))
		if e.health.current > t.endpoints[best].health.current {
			best = i
		}
	}
	t.endpoints[best].health.current -= int64(t.total)
	return t.endpoints[best]
}

func even(t tier) bool {
	w := weight(t.endpoints[0].Endpoint)
	return !slices.ContainsFunc(t.endpoints, func(e endpoint) bool { return weight(e.Endpoint) != w })
}

// nearest is the endpoint with the highest score for a key. Each pair of key and endpoint has its own score: when an
// endpoint comes or goes, no key moves between others, and every replica of a gateway chooses the same.
func (t tier) nearest(key uint64) endpoint {
	best, top := 0, math.Inf(-1)
	for i, e := range t.endpoints {
		var b [8]byte
		for j := range b {
			b[j] = byte(key >> (8 * j))
		}
		d := xxhash.New()
		d.Write(b[:])                     //nolint:errcheck // a hash takes everything
		d.WriteString(e.lane.target.Addr) //nolint:errcheck // as above
		u := (float64(d.Sum64()>>11) + 0.5) / (1 << 53)
		if score := -float64(weight(e.Endpoint)) / math.Log(u); score > top {
			best, top = i, score
		}
	}
	return t.endpoints[best]
}

// choose reads of a request what the balancer of its backend hashes. A client that should have a cookie and has none is
// given one by set.
func (c *cluster) choose(x *filter.Exchange) (out *choice, set *http.Cookie) {
	out = &choice{}
	h := c.GetBalancer().GetHash()
	if h == nil {
		return out, nil
	}
	use := func(s string) { out.key, out.hashed = xxhash.Sum64String(s), true }
	switch k := h.GetKey().(type) {
	case *l7.Hash_Header:
		if v := x.Request.Header.Values(k.Header); len(v) > 0 {
			use(v[0])
		}
	case *l7.Hash_Query:
		if v := x.Request.URL.Query()[k.Query]; len(v) > 0 {
			use(v[0])
		}
	case *l7.Hash_SourceIp:
		if a, err := netip.ParseAddrPort(x.Request.RemoteAddr); err == nil {
			use(a.Addr().Unmap().String())
		}
	case *l7.Hash_Cookie:
		if v, err := x.Request.Cookie(k.Cookie.GetName()); err == nil {
			use(v.Value)
			break
		}
		if k.Cookie.GetTtl() == nil {
			break
		}
		sum := sha256.Sum256([]byte(strconv.FormatUint(rand.Uint64(), 16) + x.Request.RemoteAddr))
		set = &http.Cookie{Name: k.Cookie.GetName(), Value: hex.EncodeToString(sum[:8]), Path: k.Cookie.GetPath(), HttpOnly: true}
		set.MaxAge = int(k.Cookie.GetTtl().AsDuration().Seconds())
		use(set.Value)
	}
	return out, set
}
