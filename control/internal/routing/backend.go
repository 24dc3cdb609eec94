package routing

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/api/l7"
	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/collection"
	"github.com/ambit-mesh/ambit/identity"
)

// Ref is a destination that some rule of a proxy names.
type Ref struct {
	Proxy    string
	Host     string
	Port     uint32 // 0: the only port of the service, else Listener
	Subset   string
	From     string // namespace of the object that names it
	Listener uint32 // port of the server, with Port 0
	HTTP2    bool   // whatever the port says
}

// Name is the name of the Backend resource.
func (r Ref) Name() string {
	s := fmt.Sprintf("%s/%s/%s:%d", r.Proxy, r.From, r.Host, r.Port)
	if r.Port == 0 {
		s += fmt.Sprintf("@%d", r.Listener)
	}
	if r.Subset != "" {
		s += "/" + r.Subset
	}
	if r.HTTP2 {
		s += "/h2"
	}
	return s
}

// portOf is the port of the service that the reference means.
func (r Ref) portOf(s *workload.Service) uint32 {
	switch {
	case r.Port != 0:
		return r.Port
	case len(s.GetPorts()) == 1:
		return s.GetPorts()[0].GetServicePort()
	}
	return r.Listener
}

// proxyNamespace and proxyPod are parts of the proxy's name: "Pod/namespace/service account/pod".
func (r Ref) proxyNamespace() string { return part(r.Proxy, 1) }
func (r Ref) proxyPod() string       { return part(r.Proxy, 3) }

func part(proxy string, i int) string {
	if p := strings.Split(proxy, "/"); len(p) > i {
		return p[i]
	}
	return ""
}

func servicesOf(w *workload.Workload) []string {
	keys := make([]string, 0, len(w.GetServices()))
	for k := range w.GetServices() {
		keys = append(keys, k)
	}
	return keys
}

// backend finds the endpoints of a destination. One that does not exist is a backend all the same, and says so.
func (b *builder) backend(r *collection.Read, ref Ref) *l7.Backend {
	out := &l7.Backend{Name: ref.Name(), Proxy: ref.Proxy, Hostname: ref.Host, Port: ref.Port, Subset: ref.Subset}
	s := b.service(r, ref)
	if s == nil {
		out.Unknown = true
		return out
	}
	out.Namespace = s.GetNamespace()
	out.Port = ref.portOf(s)
	at := slices.IndexFunc(s.GetPorts(), func(p *workload.Port) bool { return p.GetServicePort() == out.Port })
	if at < 0 {
		out.Unknown = true
		return out
	}
	port := s.GetPorts()[at]
	if p := port.GetAppProtocol(); p == workload.AppProtocol_HTTP2 || p == workload.AppProtocol_GRPC || ref.HTTP2 {
		out.Protocol = l7.AppProtocol_HTTP2
	}
	rules := b.rulesOf(r, s, ref)
	labels, ok := rules.subset(ref.Subset)
	if !ok {
		out.Unknown = true
		return out
	}
	traffic := rules.policy(ref.Subset, out.Port)
	out.Rule = traffic.source
	traffic.apply(out, ref)
	key := s.GetNamespace() + "/" + s.GetHostname()
	all := s.GetLoadBalancing().GetHealthPolicy() == workload.LoadBalancing_ALLOW_ALL
	near := b.nearness(r, s, ref, traffic)
	for _, w := range collection.Lookup(r, b.byService, key) {
		pod := b.podOf(r, w)
		if len(labels) > 0 && (pod == nil || !covers(labels, pod.Labels)) {
			continue
		}
		priority, ok := near.of(w)
		if e := b.endpoint(w, key, port); ok && e != nil {
			e.Priority = priority
			if all {
				e.Health = l7.Health_HEALTHY
			}
			if pod != nil {
				e.Workload.App = cmp.Or(pod.Labels["app"], pod.Labels["app.kubernetes.io/name"], e.Workload.App)
				e.Workload.Version = cmp.Or(pod.Labels["version"], pod.Labels["app.kubernetes.io/version"], e.Workload.Version)
			}
			out.Endpoints = append(out.Endpoints, e)
		}
	}
	slices.SortFunc(out.Endpoints, func(x, y *l7.Endpoint) int {
		return cmp.Or(cmp.Compare(x.GetAddress(), y.GetAddress()), cmp.Compare(x.GetPort(), y.GetPort()))
	})
	return out
}

// service finds the service of a host name: of the namespace that asks first, else the first by namespace that lets
// itself be seen.
func (b *builder) service(r *collection.Read, ref Ref) *workload.Service {
	found := collection.Lookup(r, b.byHostname, ref.Host)
	slices.SortFunc(found, func(x, y *workload.Service) int {
		return cmp.Or(boolInt(x.GetNamespace() != ref.From)-boolInt(y.GetNamespace() != ref.From), cmp.Compare(x.GetNamespace(), y.GetNamespace()))
	})
	for _, s := range found {
		if s.GetVisibility() == workload.Service_PUBLIC || s.GetNamespace() == ref.From {
			return s
		}
	}
	return nil
}

// endpoint is how to reach a workload's port, or nil if it does not serve it.
func (b *builder) endpoint(w *workload.Workload, service string, port *workload.Port) *l7.Endpoint {
	target := port.GetTargetPort()
	for _, p := range w.GetServices()[service].GetPorts() {
		if p.GetServicePort() == port.GetServicePort() && p.GetTargetPort() != 0 {
			target = p.GetTargetPort()
		}
	}
	if target == 0 {
		return nil
	}
	e := &l7.Endpoint{
		Port: target, Node: w.GetNode(), Weight: w.GetCapacity().GetValue(), Address: w.GetHostname(),
		Workload: &l7.WorkloadLabels{
			Name: w.GetWorkloadName(), Namespace: w.GetNamespace(), CanonicalName: w.GetCanonicalName(),
			CanonicalRevision: w.GetCanonicalRevision(), App: w.GetCanonicalName(), Version: w.GetCanonicalRevision(), Cluster: w.GetClusterId(),
		},
	}
	if len(w.GetAddresses()) > 0 {
		a, ok := netip.AddrFromSlice(w.GetAddresses()[0])
		if !ok {
			return nil
		}
		e.Address = a.Unmap().String()
	}
	if e.Address == "" {
		return nil
	}
	if l := w.GetLocality(); l != nil {
		e.Locality = &l7.Locality{Region: l.GetRegion(), Zone: l.GetZone(), Subzone: l.GetSubzone()}
	}
	if w.GetStatus() != workload.WorkloadStatus_HEALTHY {
		e.Health = l7.Health_UNHEALTHY
	}
	if w.GetTunnelProtocol() == workload.TunnelProtocol_HBONE {
		e.Tunnel = l7.Tunnel_TUNNEL_HBONE
		e.Identity = identity.ID{
			TrustDomain: cmp.Or(w.GetTrustDomain(), b.TrustDomain), Namespace: w.GetNamespace(),
			ServiceAccount: cmp.Or(w.GetServiceAccount(), "default"),
		}.String()
	}
	return e
}

// podOf finds the pod that a workload is; nil for what is no pod.
func (b *builder) podOf(r *collection.Read, w *workload.Workload) *corev1.Pod {
	key := w.GetNamespace() + "/" + w.GetName()
	if !strings.HasSuffix(w.GetUid(), "//Pod/"+key) {
		return nil
	}
	pod, ok := collection.Get(r, b.Pods, key)
	if !ok {
		return nil
	}
	return pod
}
