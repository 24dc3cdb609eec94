package routing

import (
	"cmp"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/collection"
)

// destinationRules are those in force for one service as one proxy sees it, the oldest first: all of one namespace.
type destinationRules []*networkingv1.DestinationRule

func ruleHosts(domain string) func(*networkingv1.DestinationRule) []string {
	return func(d *networkingv1.DestinationRule) []string {
		return []string{strings.ToLower(fullName(d.Spec.GetHost(), d.Namespace, domain))}
	}
}

// rulesOf finds the rules of a service, in Istio's order: the proxy's own namespace (but for the root's), the service's,
// the root's. In each, the name itself comes before wildcards, and longer ones before shorter.
func (b *builder) rulesOf(r *collection.Read, s *workload.Service, ref Ref) destinationRules {
	var candidates []*networkingv1.DestinationRule // by how specific their hosts are
	for _, host := range patterns(s.GetHostname()) {
		found := collection.Lookup(r, b.rulesForHost, host)
		slices.SortFunc(found, func(x, y *networkingv1.DestinationRule) int { return byAge(x, y) })
		candidates = append(candidates, found...)
	}
	proxy := ref.proxyNamespace()
	order := []string{proxy, s.GetNamespace(), b.RootNamespace}
	if proxy == b.RootNamespace {
		order = order[1:]
	}
	for _, ns := range order {
		var of destinationRules
		for _, d := range candidates {
			if d.Namespace != ns || !exported(d.Spec.GetExportTo(), d.Namespace, proxy) || !b.selects(r, d, ref) {
				continue
			}
			if len(of) == 0 || strings.EqualFold(b.fullHost(of[0]), b.fullHost(d)) {
				of = append(of, d)
			}
		}
		if len(of) > 0 {
			return of
		}
	}
	return nil
}

func (b *builder) fullHost(d *networkingv1.DestinationRule) string {
	return fullName(d.Spec.GetHost(), d.Namespace, b.ClusterDomain)
}

// selects reports whether a rule is for this proxy: one with a selector is for proxies of its own namespace alone.
func (b *builder) selects(r *collection.Read, d *networkingv1.DestinationRule, ref Ref) bool {
	want := d.Spec.GetWorkloadSelector().GetMatchLabels()
	if len(want) == 0 {
		return true
	}
	pod, ok := collection.Get(r, b.Pods, ref.proxyNamespace()+"/"+ref.proxyPod())
	return ok && d.Namespace == pod.Namespace && covers(want, pod.Labels)
}

// patterns are the hosts that a rule for the name may have: the name, then wildcards, the longest first.
func patterns(host string) []string {
	out := []string{host}
	for rest := host; ; {
		_, after, ok := strings.Cut(rest, ".")
		if !ok {
			return append(out, "*")
		}
		out, rest = append(out, "*."+after), after
	}
}

// subset gives the labels of a subset; false if none of the rules defines it. Rules of one host are read as one.
func (d destinationRules) subset(name string) (map[string]string, bool) {
	if name == "" {
		return nil, true
	}
	s, _ := d.find(name)
	return s.GetLabels(), s != nil
}

func (d destinationRules) find(name string) (*networking.Subset, *networkingv1.DestinationRule) {
	for _, rule := range d {
		for _, s := range rule.Spec.GetSubsets() {
			if name != "" && s.GetName() == name {
				return s, rule
			}
		}
	}
	return nil, nil
}

// traffic is how to send to a service's port, and who says so.
type traffic struct {
	source   string // "namespace/name" of the rule; empty for none
	balancer *networking.LoadBalancerSettings
	pool     *networking.ConnectionPoolSettings
	outliers *networking.OutlierDetection
	tls      *networking.ClientTLSSettings
}

// policy is what the oldest rule with a policy says of a port, with what the subset says over it. Settings of a port
// replace all that is said of the service: they inherit nothing.
func (d destinationRules) policy(subset string, port uint32) traffic {
	var t traffic
	for _, rule := range d {
		t.source = cmp.Or(t.source, rule.Namespace+"/"+rule.Name)
		if p := rule.Spec.GetTrafficPolicy(); p != nil {
			t.source = rule.Namespace + "/" + rule.Name
			t.over(p, port)
			break
		}
	}
	if s, rule := d.find(subset); s.GetTrafficPolicy() != nil {
		t.source = rule.Namespace + "/" + rule.Name
		t.over(s.GetTrafficPolicy(), port)
	}
	return t
}

func (t *traffic) over(p *networking.TrafficPolicy, port uint32) {
	t.balancer = cmp.Or(p.GetLoadBalancer(), t.balancer)
	t.pool = cmp.Or(p.GetConnectionPool(), t.pool)
	t.outliers = cmp.Or(p.GetOutlierDetection(), t.outliers)
	t.tls = cmp.Or(p.GetTls(), t.tls)
	for _, l := range p.GetPortLevelSettings() {
		if l.GetPort().GetNumber() == port {
			t.balancer, t.pool, t.outliers, t.tls = l.GetLoadBalancer(), l.GetConnectionPool(), l.GetOutlierDetection(), l.GetTls()
			return
		}
	}
}
