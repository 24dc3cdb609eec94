package ztunnel

import (
	"net/netip"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/api/explain"
	"github.com/ambit-mesh/ambit/telemetry"
)

// lastFailures is how many connections that went wrong are remembered.
const lastFailures = 256

// failures remembers the last connections that went wrong. The zero value remembers none yet.
type failures struct {
	mu   sync.Mutex // guards below
	ring []explain.Failure
	next int // where the next one goes once the ring is full
}

func (f *failures) add(r telemetry.Record) {
	x := explain.Failure{
		Time: time.Now(), Direction: r.Direction.String(), Source: partyName(r.Src), SourceAddr: addrText(r.Src.Addr), Identity: r.Src.Identity.String(),
		Dest: partyName(r.Dst), DestAddr: addrText(r.Dst.Addr), Service: r.Service.Host, Error: r.Err, Policy: r.Policy, Why: r.Why,
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.ring) < lastFailures {
		f.ring = append(f.ring, x)
		return
	}
	f.ring[f.next] = x
	f.next = (f.next + 1) % lastFailures
}

// last lists at most n, the oldest of them first.
func (f *failures) last(n int) []explain.Failure {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := append(append([]explain.Failure{}, f.ring[f.next:]...), f.ring[:f.next]...)
	return all[max(0, len(all)-n):]
}

func partyName(p telemetry.Party) string {
	if p.Name == "" {
		return ""
	}
	return p.Namespace + "/" + p.Name
}

func addrText(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
