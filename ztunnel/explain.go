package ztunnel

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/ambit-mesh/ambit/admin"
	"github.com/ambit-mesh/ambit/api/explain"
	"github.com/ambit-mesh/ambit/authz"
	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/ztunnel/internal/dns"
	"github.com/ambit-mesh/ambit/ztunnel/internal/state"
)

// Pages are the debug pages on which the proxy explains itself, by path: /explain?from=NAMESPACE/POD&to=ADDRESS:PORT
// tells what would become of a connection that the pod opens; /explain?at=NAMESPACE/POD&from=ADDRESS&to=ADDRESS:PORT,
// with peer=IDENTITY if one is proved, what would become of one that reaches it; /last?n=N which went wrong.
func (z *Ztunnel) Pages() map[string]admin.Page {
	return map[string]admin.Page{
		"/explain": {About: "what would become of a connection: ?from=NAMESPACE/POD&to=HOST:PORT", Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			q := r.URL.Query()
			ask := z.explainOutbound
			if q.Has("at") {
				ask = z.explainInbound
			}
			v, err := ask(r.Context(), q)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			z.answer(w, v)
		})},
		"/last": {About: "the connections that went wrong: ?n=10", Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n, err := strconv.Atoi(r.URL.Query().Get("n"))
			if err != nil || n < 0 {
				n = lastFailures
			}
			z.answer(w, z.failures.last(n))
		})},
	}
}

func (z *Ztunnel) answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		z.conf.Log.Debug("explanation not sent", "error", err)
	}
}

// podWorkload finds a pod by "namespace/name", and whether this proxy serves it.
func (z *Ztunnel) podWorkload(text string) (w *state.Workload, served *running, err error) {
	namespace, name, _ := strings.Cut(text, "/")
	if w = z.state.Pod(z.conf.ClusterID, namespace, name); w == nil {
		return nil, nil, fmt.Errorf("the control plane has told of no pod %q", text)
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, r := range z.proxies {
		if r.pod.Namespace == namespace && r.pod.Name == name {
			return w, r, nil
		}
	}
	return w, nil, nil
}

func (z *Ztunnel) explainOutbound(ctx context.Context, q url.Values) (any, error) {
	from, served, err := z.podWorkload(q.Get("from"))
	if err != nil {
		return nil, err
	}
	to, err := z.dialled(from, q.Get("to"))
	if err != nil {
		return nil, err
	}
	route := z.route(ctx, served, from, to)
	out := explain.Outbound{
		Captured: served != nil, Source: from.UID, Identity: from.Identity.String(), Dialled: to.String(),
		Kind: route.Kind.String(), Type: route.Type, Why: route.Why(),
	}
	if len(from.Addresses) > 0 {
		out.Address = from.Addresses[0].String()
	}
	for _, e := range z.certs.Entries() {
		if e.ID == from.Identity {
			out.Certificate = strings.TrimSuffix(string(e.State)+": "+e.Error, ": ")
		}
	}
	if route.Waypoint != nil {
		out.Waypoint = route.Waypoint.String()
	}
	if route.Kind == state.HBONE {
		out.Hop = route.Hop.Addr.String()
		for _, id := range route.Hop.Expect {
			out.Expect = append(out.Expect, id.String())
		}
	}
	out.Endpoints = z.endpoints(from, to, route)
	if route.Service != nil {
		out.Service = route.Service.Key()
	}
	return out, nil
}

// route decides as for a connection. What needs a look-up in a pod that this proxy does not serve stays undecided.
func (z *Ztunnel) route(ctx context.Context, served *running, from *state.Workload, to netip.AddrPort) state.Route {
	if served == nil {
		return z.state.Route(from, to)
	}
	return z.routes.Route(ctx, served.pod.NS, from, to)
}

// endpoints are those among which chance decides.
func (z *Ztunnel) endpoints(from *state.Workload, to netip.AddrPort, route state.Route) (out []explain.Endpoint) {
	var choices []state.Choice
	switch {
	case route.Service != nil:
		choices = z.state.Choices(from, route.Service, to)
	case route.Workload != nil:
		choices = []state.Choice{{Workload: route.Workload, At: route.To}}
	}
	for _, c := range choices {
		w := c.Workload
		at := c.At.String()
		if !c.At.Addr().IsValid() {
			at = net.JoinHostPort(w.Hostname, strconv.Itoa(int(c.At.Port())))
		}
		out = append(out, explain.Endpoint{
			UID: w.UID, Namespace: w.Namespace, Name: w.Name, Node: w.Node, Address: at, Identity: w.Identity.String(), HBONE: w.HBONE,
		})
	}
	return out
}

// dialled is an address and port; of a name it is the address that the pod would be answered, of a family of its own if
// there is one.
func (z *Ztunnel) dialled(from *state.Workload, text string) (netip.AddrPort, error) {
	if to, err := netip.ParseAddrPort(text); err == nil {
		return to, nil
	}
	i := strings.LastIndexByte(text, ':')
	if i < 0 {
		return netip.AddrPort{}, fmt.Errorf("to=%q: want ADDRESS:PORT or HOST:PORT", text)
	}
	port, err := strconv.ParseUint(text[i+1:], 10, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("to=%q: %w", text, err)
	}
	addrs, ok := dns.Known(z.dnsConfig(), from.Namespace, text[:i])
	switch {
	case !ok:
		return netip.AddrPort{}, fmt.Errorf("%s is no name of the mesh: ask about an address that it has outside", text[:i])
	case len(addrs) == 0:
		return netip.AddrPort{}, fmt.Errorf("%s has no address: a service without one of its own, and without endpoints", text[:i])
	}
	at := slices.IndexFunc(addrs, func(a netip.Addr) bool {
		return slices.ContainsFunc(from.Addresses, func(own netip.Addr) bool { return own.Is4() == a.Is4() })
	})
	return netip.AddrPortFrom(addrs[max(at, 0)], uint16(port)), nil
}

func (z *Ztunnel) explainInbound(_ context.Context, q url.Values) (any, error) {
	at, served, err := z.podWorkload(q.Get("at"))
	if err != nil {
		return nil, err
	}
	c := authz.Conn{}
	if c.From, err = netip.ParseAddr(q.Get("from")); err != nil {
		return nil, fmt.Errorf("from: %w", err)
	}
	if c.To, err = netip.ParseAddrPort(q.Get("to")); err != nil {
		return nil, fmt.Errorf("to: %w", err)
	}
	if peer := q.Get("peer"); peer != "" {
		if c.Peer, err = identity.Parse(peer); err != nil {
			return nil, fmt.Errorf("peer: %w", err)
		}
	}
	policies := z.state.PoliciesOf(at)
	v := policies.Check(c)
	out := explain.Inbound{
		Captured: served != nil, Workload: at.UID, Peer: q.Get("peer"), Policies: []explain.Policy{}, Allow: v.Allow, Policy: v.Policy, Reason: v.Reason, Why: v.Why,
	}
	for _, f := range policies.Explain(c) {
		out.Policies = append(out.Policies, explain.Policy{Name: f.Policy, Action: f.Action.String(), DryRun: f.DryRun, Matched: f.Matched, Why: f.Why})
	}
	return out, nil
}
