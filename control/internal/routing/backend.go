package routing

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
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
	return s
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
	if out.Port == 0 {
		if out.Port = ref.Listener; len(s.GetPorts()) == 1 {
			out.Port = s.GetPorts()[0].GetServicePort()
		}
	}
	at := slices.IndexFunc(s.GetPorts(), func(p *workload.Port) bool { return p.GetServicePort() == out.Port })
	if at < 0 {
		out.Unknown = true
		return out
	}
	port := s.GetPorts()[at]
	if p := port.GetAppProtocol(); p == workload.AppProtocol_HTTP2 || p == workload.AppProtocol_GRPC {
		out.Protocol = l7.AppProtocol_HTTP2
	}
	labels, ok := b.subset(r, s, ref)
	if !ok {
		out.Unknown = true
		return out
	}
	key := s.GetNamespace() + "/" + s.GetHostname()
	all := s.GetLoadBalancing().GetHealthPolicy() == workload.LoadBalancing_ALLOW_ALL
	for _, w := range collection.Lookup(r, b.byService, key) {
		if len(labels) > 0 && !covers(labels, b.labelsOf(r, w)) {
			continue
		}
		if e := b.endpoint(w, key, port); e != nil {
			if all {
				e.Health = l7.Health_HEALTHY
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

// labelsOf finds the labels of the pod that a workload is.
func (b *builder) labelsOf(r *collection.Read, w *workload.Workload) map[string]string {
	key := w.GetNamespace() + "/" + w.GetName()
	if !strings.HasSuffix(w.GetUid(), "//Pod/"+key) {
		return nil
	}
	pod, ok := collection.Get(r, b.Pods, key)
	if !ok {
		return nil
	}
	return pod.Labels
}

func ruleHosts(domain string) func(*networkingv1.DestinationRule) []string {
	return func(d *networkingv1.DestinationRule) []string {
		return []string{strings.ToLower(fullName(d.Spec.GetHost(), d.Namespace, domain))}
	}
}

// subset gives the labels of a subset; false if no rule that applies defines it. The rule of the namespace that asks
// comes first, then the service's own.
func (b *builder) subset(r *collection.Read, s *workload.Service, ref Ref) (map[string]string, bool) {
	if ref.Subset == "" {
		return nil, true
	}
	rules := collection.Lookup(r, b.rulesForHost, s.GetHostname())
	slices.SortFunc(rules, func(x, y *networkingv1.DestinationRule) int { return byAge(x, y) })
	for _, ns := range []string{ref.From, s.GetNamespace()} {
		for _, d := range rules {
			if d.Namespace != ns || !exported(d.Spec.GetExportTo(), d.Namespace, ref.From) {
				continue
			}
			at := slices.IndexFunc(d.Spec.GetSubsets(), func(x *networking.Subset) bool { return x.GetName() == ref.Subset })
			if at >= 0 {
				return d.Spec.GetSubsets()[at].GetLabels(), true
			}
		}
	}
	return nil, false
}

// SecretRef is a certificate that a listener of a proxy names; it is read in the proxy's own namespace.
type SecretRef struct{ Proxy, Namespace, Secret string }

// Name is the name of the Secret resource.
func (r SecretRef) Name() string { return r.Proxy + "/" + r.Secret }

// secret reads a certificate from either of the forms that Istio accepts; the CA may be in a secret of its own.
func (b *builder) secret(r *collection.Read, ref SecretRef) (*l7.Secret, bool) {
	s, ok := collection.Get(r, b.Secrets, ref.Namespace+"/"+ref.Secret)
	if !ok {
		return nil, false
	}
	out := &l7.Secret{Name: ref.Name(), Proxy: ref.Proxy}
	out.CertificateChain, out.PrivateKey, out.CaCertificates = one(s, "tls.crt", "cert"), one(s, "tls.key", "key"), one(s, "ca.crt", "cacert")
	if ca, ok := collection.Get(r, b.Secrets, ref.Namespace+"/"+ref.Secret+"-cacert"); ok && len(out.CaCertificates) == 0 {
		out.CaCertificates = one(ca, "ca.crt", "cacert")
	}
	return out, len(out.CertificateChain) > 0 && len(out.PrivateKey) > 0
}

func one(s *corev1.Secret, keys ...string) []byte {
	for _, k := range keys {
		if v := s.Data[k]; len(v) > 0 {
			return v
		}
		if v := s.StringData[k]; v != "" {
			return []byte(v)
		}
	}
	return nil
}
