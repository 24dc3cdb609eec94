package proxy

import (
	"encoding/hex"
	"errors"
	"net/netip"
	"time"

	"github.com/ambit-mesh/ambit/authz"
	"github.com/ambit-mesh/ambit/hbone"
	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/identity/crl"
	"github.com/ambit-mesh/ambit/telemetry"
	"github.com/ambit-mesh/ambit/ztunnel/internal/state"
)

// report is the one record and the one metric update of a connection.
type report struct {
	telemetry.Record
	p       *Proxy
	span    hbone.Traceparent
	began   time.Time
	traffic hbone.Traffic
	inverse bool    // traffic is counted from the server's side
	twin    *report // the client's, whose traffic it is, where both sides are ours
	closed  func()  // nil before the connection was open
}

func (p *Proxy) newReport(d telemetry.Direction, trace hbone.Traceparent) *report {
	return &report{p: p, span: trace, began: time.Now(), Record: telemetry.Record{Direction: d, ID: hex.EncodeToString(trace.Trace[:]), Early: true}}
}

// known says that both ends and the service are in the record: what ends before is told in few words.
func (r *report) known() {
	r.Early = false
	r.p.Access.Begin(&r.Record)
}

// opened counts the connection, from when it can carry bytes.
func (r *report) opened() { r.closed = r.p.TCP.Opened(&r.Record, r) }

// Carried is what the connection has carried so far.
func (r *report) Carried() (sent, received uint64) {
	if r.twin != nil {
		return r.twin.Carried()
	}
	a, b := uint64(r.traffic.Sent.Load()), uint64(r.traffic.Received.Load())
	if r.inverse {
		return b, a
	}
	return a, b
}

// refused notes a denial with its policy.
func (r *report) refused(v authz.Verdict) { r.Policy, r.Why = v.Policy, v.Why }

// end writes the record. carried counts what went to the server and what came back.
func (r *report) end(sent, received int64, err error) {
	r.Duration = time.Since(r.began)
	r.Sent, r.Received = uint64(max(sent, 0)), uint64(max(received, 0))
	if e, revoked := errors.AsType[*crl.RevokedError](err); revoked && r.closed != nil {
		err = errRevoked(e)
	}
	if err != nil {
		r.Err, r.Flag = err.Error(), flagOf(err)
		if late, ok := errors.AsType[*lateDenial](err); ok {
			r.refused(late.verdict)
		}
	}
	if r.closed != nil {
		r.closed()
	} else {
		r.p.TCP.Failed(&r.Record)
	}
	r.p.Access.End(&r.Record)
	if err != nil && r.p.Failed != nil {
		r.p.Failed(r.Record)
	}
}

// party describes a workload; w may be nil.
func party(w *state.Workload, addr netip.AddrPort, id identity.ID) telemetry.Party {
	out := telemetry.Party{Addr: addr, Identity: id}
	if w == nil {
		return out
	}
	out.Name, out.Namespace, out.Workload, out.Cluster = w.Name, w.Namespace, w.Owner, w.Cluster
	out.CanonicalName, out.CanonicalRevision = w.CanonicalName, w.CanonicalRevision
	out.Region, out.Zone, out.Account = w.Region, w.Zone, w.Identity
	return out
}

func serviceOf(s *state.Service) telemetry.Service {
	if s == nil {
		return telemetry.Service{}
	}
	return telemetry.Service{Host: s.Hostname, Name: s.Name, Namespace: s.Namespace}
}

// introduction is a workload's baggage as it is written.
type introduction struct {
	of   *state.Workload
	text string
}

// baggage is how the pod introduces itself: the same for each connection, until its workload changes.
func (p *Proxy) baggage(w *state.Workload) string {
	if last := p.introduced.Load(); last != nil && last.of == w {
		return last.text
	}
	b := &introduction{w, baggageOf(w).String()}
	p.introduced.Store(b)
	return b.text
}

func baggageOf(w *state.Workload) hbone.Baggage {
	b := hbone.Baggage{
		Cluster: w.Cluster, Namespace: w.Namespace, Kind: w.Kind, Workload: w.Owner,
		Service: w.CanonicalName, Revision: w.CanonicalRevision, Region: w.Region, Zone: w.Zone,
	}
	if b.Kind == "pod" {
		b.Workload = w.Name
	}
	return b
}

// client describes who opened a tunnel. What is proved comes from its certificate; the rest from the workload of its
// address if that has the proved identity, else from what the client says of itself if it speaks of its own namespace.
func (p *Proxy) client(addr netip.AddrPort, id identity.ID, baggage string) telemetry.Party {
	if w := p.State.Workload(addr.Addr()); w != nil && (id.IsZero() || w.Identity == id) {
		return party(w, addr, id)
	}
	out := telemetry.Party{Addr: addr, Identity: id, Namespace: id.Namespace, Foreign: true}
	if b, err := hbone.ParseBaggage(baggage); err == nil && b.Namespace == id.Namespace && !id.IsZero() {
		out.Workload, out.CanonicalName, out.CanonicalRevision = b.Workload, b.Service, b.Revision
		out.Cluster, out.Region, out.Zone = b.Cluster, b.Region, b.Zone
	}
	return out
}
