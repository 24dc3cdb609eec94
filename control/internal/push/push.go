// Package push derives what proxies subscribe to from what the control plane reads.
package push

import (
	"fmt"
	"maps"
	"slices"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/ambit-mesh/ambit/api/authorization"
	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/collection"
	"github.com/ambit-mesh/ambit/control/internal/ambient"
	"github.com/ambit-mesh/ambit/control/internal/routing"
	"github.com/ambit-mesh/ambit/control/internal/status"
	"github.com/ambit-mesh/ambit/control/source"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/xds/delta"
	"github.com/ambit-mesh/ambit/xds/server"
)

// Outputs are the derived collections, and how they are served.
type Outputs struct {
	Services  collection.Collection[*ambient.Service]
	Workloads collection.Collection[*workload.Workload]
	Policies  collection.Collection[*authorization.Authorization]
	Statuses  collection.Collection[status.Status]
	// Needs are what must have got to node proxies; whoever finds out whether it has puts that into Forces. Stale are the
	// objects whose files do not count as they are now.
	Needs  collection.Collection[status.Need]
	Forces *collection.Set[status.Force]
	Stale  *collection.Set[status.Stale]
	// Selected are the workloads that refer to a policy, by its key.
	Selected *collection.Index[string, *workload.Workload]
	// Assigned are the addresses of ServiceEntries without their own; whoever gives them away puts them here.
	Assigned *collection.Set[ambient.Assigned]
	Types    []server.Type[source.Caller]
}

// Trusted are the accounts, "namespace/name", whose proxies serve whole nodes and so may see every workload.
type Trusted []string

func (t Trusted) sees(c source.Caller, _ delta.Resource) bool { return slices.Contains(t, c.Account()) }

// New derives everything from the objects of a store.
func New(st *source.Store, c ambient.Config, trusted Trusted) Outputs {
	d := newDeriver(st, c)
	out := Outputs{Services: d.services, Workloads: d.workloads(), Policies: d.policies(), Needs: d.needs(), Forces: d.forces, Stale: d.stale, Assigned: d.assigned}
	out.Selected = collection.NewIndex(out.Workloads, func(w *workload.Workload) []string { return w.AuthorizationPolicies })
	resourceKind := collection.Kind[delta.Resource]{Key: func(r delta.Resource) string { return r.Name }, Equal: sameResource}
	addresses := collection.Join(sameResource,
		collection.Map(out.Workloads, resourceKind, func(_ *collection.Read, w *workload.Workload) (delta.Resource, bool) {
			r := resource(mesh.TypeAddress, w.Uid, workloadAliases(w), &workload.Address{Type: &workload.Address_Workload{Workload: w}})
			r.With = slices.Sorted(maps.Keys(w.Services)) // a service that is asked for is of no use without its endpoints
			return r, true
		}),
		collection.Map(out.Services, resourceKind, func(_ *collection.Read, s *ambient.Service) (delta.Resource, bool) {
			return resource(mesh.TypeAddress, s.Key(), serviceAliases(s.Wire), &workload.Address{Type: &workload.Address_Service{Service: s.Wire}}), true
		}))
	workloads := collection.Map(out.Workloads, resourceKind, func(_ *collection.Read, w *workload.Workload) (delta.Resource, bool) {
		return resource(mesh.TypeWorkload, w.Uid, workloadAliases(w), w), true
	})
	policies := collection.Map(out.Policies, resourceKind, func(_ *collection.Read, p *authorization.Authorization) (delta.Resource, bool) {
		return resource(mesh.TypeAuthorization, p.Namespace+"/"+p.Name, nil, p), true
	})
	// What others refer to is sent first: a workload must not name a policy that its proxy does not have yet.
	out.Types = []server.Type[source.Caller]{
		{URL: mesh.TypeAuthorization, Resources: policies, Visible: trusted.sees},
		{URL: mesh.TypeAddress, Resources: addresses, Visible: trusted.sees},
		{URL: mesh.TypeWorkload, Resources: workloads, Visible: trusted.sees},
	}
	o := st.Objects
	l7 := routing.New(routing.Inputs{
		ClusterDomain: c.ClusterDomain, TrustDomain: c.TrustDomain, RootNamespace: c.RootNamespace,
		Namespaces: o.Namespaces, KubeGateways: o.KubeGateways, HTTPRoutes: o.HTTPRoutes, GRPCRoutes: o.GRPCRoutes,
		TLSRoutes: o.TLSRoutes, TCPRoutes: o.TCPRoutes, ReferenceGrants: o.ReferenceGrants,
		Pods: o.Pods, KubeServices: o.Services, Secrets: o.Secrets,
		Gateways: o.Gateways, VirtualServices: o.VirtualServices, DestinationRules: o.DestinationRules,
		Services: collection.Map(out.Services, collection.Kind[*workload.Service]{
			Key:   func(s *workload.Service) string { return s.Namespace + "/" + s.Hostname },
			Equal: func(a, b *workload.Service) bool { return proto.Equal(a, b) },
		}, func(_ *collection.Read, s *ambient.Service) (*workload.Service, bool) { return s.Wire, true }),
		Workloads: out.Workloads,
	})
	out.Statuses = collection.Join(status.Same, d.statuses(out.Needs), d.routingStatuses(l7.Plans), d.kubeStatuses(l7.Judge),
		collection.Map(d.stale, collection.Kind[status.Status]{Key: status.Status.Key, Equal: status.Same},
			func(_ *collection.Read, s status.Stale) (status.Status, bool) { return s.Alone() }))
	for _, url := range []string{mesh.TypeSecret, mesh.TypeBackend, mesh.TypeRoute, mesh.TypeListener} {
		out.Types = append(out.Types, server.Type[source.Caller]{
			URL: url, Resources: l7.Resources[url],
			Visible: func(c source.Caller, r delta.Resource) bool {
				return routing.Visible(c.Namespace, c.ServiceAccount, c.Pod, r.Name)
			},
		})
	}
	return out
}

func sameResource(a, b delta.Resource) bool { return a.Name == b.Name && a.Version == b.Version }

// resource wraps a message. Its version is a hash of its bytes: a proxy that reconnects is not sent what it has.
func resource(url, name string, aliases []string, m proto.Message) delta.Resource {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(fmt.Sprintf("push: marshal our own %T: %v", m, err))
	}
	return delta.Resource{
		Name: name, Aliases: aliases, Version: fmt.Sprintf("%016x", xxhash.Sum64(b)), Body: &anypb.Any{TypeUrl: url, Value: b},
	}
}
