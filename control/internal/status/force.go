package status

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// Need is what must have got to the node proxies for an object to be in force. Every change of the object is another need.
type Need struct {
	Of    kinds.Object
	Types []string // of resources that it is part of
	Names []string // of those among them that are the object itself, all of the first type
	// Selects tells that it is a policy for workloads with certain labels.
	Selects bool
}

// Key names the status that a need is about.
func (n Need) Key() string { return Of(n.Of).Key() }

// SameNeed reports whether two are one.
func SameNeed(a, b Need) bool {
	return a.Of == b.Of && a.Selects == b.Selects && slices.Equal(a.Types, b.Types) && slices.Equal(a.Names, b.Names)
}

// Force is whether an object is in force, for its status.
type Force struct {
	Key       string // as Status.Key
	Condition Condition
}

// Proxy is a node proxy as far as it matters here.
type Proxy struct {
	Name      string
	Connected bool
	// Through is, by type, up to when it knows of every change.
	Through map[string]time.Time
	// Refused tells why it refused a resource, "" if it did not.
	Refused func(typeURL, name string) string
	// Elsewhere is what another control plane tells of it, to which it is connected; nil for a proxy of our own.
	Elsewhere *Report
}

// Verdict is which proxies have what an object needs.
type Verdict struct {
	Have, Of int
	Lag      []Lagging // those that do not
	Refused  bool
}

// Lagging is a proxy that does not have something.
type Lagging struct {
	Proxy, Why string
	Refused    bool
}

const unanswered = "has not answered yet"

// Judge finds which proxies have everything that a need of a moment calls for.
func Judge(n Need, changed time.Time, proxies []Proxy) Verdict {
	v := Verdict{Of: len(proxies)}
	for _, p := range proxies {
		why, refused := lag(n, changed, p)
		if why == "" {
			v.Have++
			continue
		}
		v.Refused = v.Refused || refused
		v.Lag = append(v.Lag, Lagging{p.Name, why, refused})
	}
	return v
}

// lag is why a proxy does not have what a need calls for; "" if it has.
func lag(n Need, changed time.Time, p Proxy) (why string, refused bool) {
	if !p.Connected {
		return "not connected", false
	}
	if p.Elsewhere != nil {
		return p.Elsewhere.lag(n.Mark(), p.Name)
	}
	for _, name := range n.Names {
		if why := p.Refused(n.Types[0], name); why != "" {
			return "refused it: " + why, true
		}
	}
	for _, t := range n.Types {
		if p.Through[t].Before(changed) || p.Through[t].IsZero() {
			return unanswered, false
		}
	}
	return "", false
}

// Selection is which workloads a policy selects.
type Selection struct {
	All  int
	Bare []string // those that no proxy guards
}

// Told adds to a condition what a policy's selection does to it.
func (s Selection) Told(c Condition) Condition {
	switch {
	case s.All == 0:
		c.Message += "; it selects no workload now"
	case len(s.Bare) > 0 && c.True:
		slices.Sort(s.Bare)
		n, named := len(s.Bare), s.Bare
		more := ""
		if n > mostNamed {
			more = fmt.Sprintf(" and %d more", n-mostNamed)
			named = named[:mostNamed]
		}
		c.True, c.Reason = false, "NotCaptured"
		c.Message = fmt.Sprintf("nothing enforces it for %d of the %d workloads that it selects, as they are not in the mesh: %s%s; label their namespace istio.io/dataplane-mode=ambient",
			n, s.All, strings.Join(named, ", "), more)
	}
	return c
}

// mostNamed is how many proxies a message names; a large mesh has many.
const mostNamed = 5

// Condition says a verdict.
func (v Verdict) Condition(generation int64) Condition {
	c := Condition{Type: InForce, Generation: generation}
	switch lag := v.Lag; {
	case v.Of == 0:
		c.Reason, c.Message = "NoProxy", "no node proxy runs: nothing enforces it; look at `kubectl get pods -n istio-system -l app=ztunnel`"
	case len(lag) == 0:
		c.True, c.Reason = true, "InForce"
		c.Message = fmt.Sprintf("in force on all %d node proxies", v.Of)
		if v.Of == 1 {
			c.Message = "in force on the one node proxy"
		}
	default:
		c.Reason = "Pending"
		if v.Refused {
			c.Reason = "Refused"
		}
		slices.SortFunc(lag, func(a, b Lagging) int { return strings.Compare(a.Proxy, b.Proxy) })
		more := ""
		if len(lag) > mostNamed {
			more = fmt.Sprintf(" and %d more", len(lag)-mostNamed)
			lag = lag[:mostNamed]
		}
		named := make([]string, len(lag))
		for i, l := range lag {
			named[i] = fmt.Sprintf("%s (%s)", l.Proxy, l.Why)
		}
		c.Message = fmt.Sprintf("in force on %d of %d node proxies; not on %s%s", v.Have, v.Of, strings.Join(named, ", "), more)
	}
	return c
}
