package ztunnel

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/ambit-mesh/ambit/api/authorization"
	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/xds/client"
	"github.com/ambit-mesh/ambit/ztunnel/internal/demand"
	"github.com/ambit-mesh/ambit/ztunnel/internal/dns"
	"github.com/ambit-mesh/ambit/ztunnel/internal/inpod"
	"github.com/ambit-mesh/ambit/ztunnel/internal/resolve"
	"github.com/ambit-mesh/ambit/ztunnel/internal/state"
)

const (
	// answerWithin is how long a connection waits for what the control plane is asked on demand.
	answerWithin = 5 * time.Second
	// maxDemanded bounds the names that connections made us subscribe to.
	maxDemanded = 16 << 10
)

// newResolver makes what decides where connections go.
func (z *Ztunnel) newResolver() *resolve.Resolver {
	r := &resolve.Resolver{
		State: z.state, Hosts: dns.NewHosts(z.dnsConfig()), Pick: rand.Uint64N,
		Resolved: func(from *state.Workload, host string) { z.dns.Resolved(resolve.Party(from), host) },
	}
	if z.demand != nil {
		r.Ask = z.demand
	}
	return r
}

// addresses subscribes to workloads and services.
type addresses struct{ z *Ztunnel }

func (a addresses) Subscribe(names ...string)   { a.z.xds.Subscribe(mesh.TypeAddress, names...) }
func (a addresses) Unsubscribe(names ...string) { a.z.xds.Unsubscribe(mesh.TypeAddress, names...) }

func (z *Ztunnel) newDemand() *demand.Asker {
	if !z.conf.OnDemand {
		return nil
	}
	return demand.New(addresses{z}, answerWithin, maxDemanded)
}

// wantPod asks for a pod of ours, and release takes it back.
func (z *Ztunnel) wantPod(p inpod.Pod) (release func()) {
	if z.demand == nil {
		return func() {}
	}
	uid := state.PodUID(z.conf.ClusterID, p.Namespace, p.Name)
	z.demand.Keep(uid)
	return func() { z.demand.Release(uid) }
}

func (z *Ztunnel) applyAddresses(set []client.Item[*workload.Address], remove []string) error {
	b := state.Addresses{Remove: remove}
	for _, i := range set {
		b.Set = append(b.Set, i.Body)
	}
	err := z.state.ApplyAddresses(b)
	if z.demand != nil {
		z.demand.Answered(remove...)
		for _, i := range set {
			z.demand.Answered(append(aliases(i.Body), i.Name)...)
			z.wantServices(i.Body.GetWorkload())
		}
	}
	return refused(err)
}

// wantServices asks for the services of pods of ours, which connections to them may name.
func (z *Ztunnel) wantServices(w *workload.Workload) {
	if len(w.GetServices()) == 0 {
		return
	}
	z.mu.Lock()
	ours := false
	for _, r := range z.proxies {
		ours = ours || state.PodUID(z.conf.ClusterID, r.pod.Namespace, r.pod.Name) == w.GetUid()
	}
	z.mu.Unlock()
	if !ours {
		return
	}
	for name := range w.GetServices() {
		z.demand.Keep(name)
		z.demand.Release(name) // it may be taken back when many others are asked for
	}
}

// aliases are the names by which a resource can have been asked for, besides its own.
func aliases(a *workload.Address) (out []string) {
	add := func(network string, ip []byte) {
		if x, ok := netip.AddrFromSlice(ip); ok {
			out = append(out, state.AddressName(network, x))
		}
	}
	if w := a.GetWorkload(); w.GetNetworkMode() != workload.NetworkMode_HOST_NETWORK {
		for _, ip := range w.GetAddresses() {
			add(w.GetNetwork(), ip)
		}
	}
	for _, v := range a.GetService().GetAddresses() {
		if v.Length == nil {
			add(v.GetNetwork(), v.GetAddress())
		}
	}
	return out
}

func (z *Ztunnel) applyPolicies(set []client.Item[*authorization.Authorization], remove []string) error {
	b := state.Policies{Remove: remove}
	for _, i := range set {
		b.Set, b.Names = append(b.Set, i.Body), append(b.Names, i.Name)
	}
	return refused(z.state.ApplyPolicies(b))
}

// refused tells the control plane which resources were not understood; the others were taken.
func refused(err error) error {
	if bad, ok := errors.AsType[*state.Rejected](err); ok {
		return client.Refuse(err, bad.Names...)
	}
	return err
}
