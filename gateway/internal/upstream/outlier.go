package upstream

import (
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/api/l7"
)

// maxEjection bounds how long an endpoint that fails again and again is left alone (Envoy's default).
const maxEjection = 300 * time.Second

// outcome is how a try at an endpoint went.
type outcome int

const (
	good         outcome = iota
	failed               // a status of 500 and above
	gatewayError         // 502, 503 or 504, or the time for a try passed
	unreached            // no connection, or it broke
)

func outcomeOf(status int) outcome {
	switch {
	case status >= 502 && status <= 504:
		return gatewayError
	case status >= 500:
		return failed
	}
	return good
}

// health is what is remembered of an endpoint, over changes of its backend.
type health struct {
	mu      sync.Mutex // guards below
	any     uint32     // failures of any kind in a row
	gateway uint32     // gateway errors in a row
	local   uint32     // of ours alone, where they are counted apart
	until   time.Time  // ejected until then
	times   int        // ejections lately
	current int64      // of the smooth round robin
}

// out reports whether the endpoint is ejected.
func (h *health) out(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return now.Before(h.until)
}

// note takes in how a try went, and reports whether the endpoint deserves to be ejected.
func (h *health) note(o *l7.Outliers, how outcome) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if how == good {
		h.any, h.gateway, h.local = 0, 0, 0
		return false
	}
	if how == unreached && o.GetSplitLocal() {
		h.local++
		return reached(h.local, o.GetConsecutiveLocalFailures())
	}
	if h.any++; how == failed {
		h.gateway = 0
	} else {
		h.gateway++
	}
	return reached(h.any, o.GetConsecutive_5Xx()) || reached(h.gateway, o.GetConsecutiveGatewayErrors())
}

func reached(n, limit uint32) bool { return limit > 0 && n >= limit }

// eject leaves the endpoint alone: longer each time, unless it was well for a while.
func (h *health) eject(o *l7.Outliers, now time.Time) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if every := o.GetInterval().AsDuration(); every > 0 && h.times > 0 {
		h.times = max(0, h.times-int(now.Sub(h.until)/every))
	}
	h.times++
	d := min(o.GetBaseEjection().AsDuration()*time.Duration(h.times), max(maxEjection, o.GetBaseEjection().AsDuration()))
	h.until = now.Add(d)
	h.any, h.gateway, h.local = 0, 0, 0
	return d
}

// observe takes in how a try at an endpoint went, and ejects it if the backend's rule says so and enough others are left.
func (c *cluster) observe(e endpoint, how outcome, now time.Time) {
	o := c.GetOutliers()
	if o == nil || !e.health.note(o, how) {
		return
	}
	c.state.mu.Lock() // one ejection at a time, so that the share is kept
	defer c.state.mu.Unlock()
	all, out := 0, 0
	for _, tier := range c.tiers {
		for _, x := range tier.endpoints {
			if all++; x.health.out(now) {
				out++
			}
		}
	}
	if e.health.out(now) || out > 0 && (out+1)*100 > int(o.GetMaxPercent())*all {
		return
	}
	d := e.health.eject(o, now)
	c.state.log.Warn("endpoint ejected: it fails again and again", "backend", c.GetHostname(), "port", c.GetPort(), "endpoint", e.lane.target.Addr, "for", d)
}
