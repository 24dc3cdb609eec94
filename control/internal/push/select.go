package push

import (
	"github.com/cespare/xxhash/v2"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/ambit-mesh/ambit/collection"
	"github.com/ambit-mesh/ambit/control/internal/ambient"
)

// chooser is something that selects workloads by their labels: one of the three.
type chooser struct {
	service *ambient.Service
	policy  *securityv1.AuthorizationPolicy
	peers   *securityv1.PeerAuthentication
}

// where is the namespace whose workloads it selects, "" for all, and how.
func (c chooser) where(root string) (namespace string, selector map[string]string) {
	switch {
	case c.service != nil:
		return c.service.Wire.Namespace, c.service.Selector
	case c.peers != nil:
		return c.peers.Namespace, c.peers.Spec.GetSelector().GetMatchLabels()
	case c.policy.Namespace == root:
		return "", c.policy.Spec.GetSelector().GetMatchLabels()
	}
	return c.policy.Namespace, c.policy.Spec.GetSelector().GetMatchLabels()
}

func (c chooser) key() string {
	switch {
	case c.service != nil:
		return "service " + c.service.Key()
	case c.peers != nil:
		return "peers " + c.peers.Namespace + "/" + c.peers.Name
	}
	return "policy " + c.policy.Namespace + "/" + c.policy.Name
}

// label is a label's name and value in a namespace, as a number: of two that are one by chance, the selectors decide.
type label uint64

func labelOf(namespace, key, value string) label {
	return label(xxhash.Sum64String(namespace + "\x00" + key + "\x00" + value))
}

// choosers finds who selects workloads by one of the labels that they ask for. A change of a Service or policy concerns only
// workloads that have that label, not all of a namespace of thousands.
func (d *deriver) choosers() *collection.Index[label, chooser] {
	same := func(a, b chooser) bool { return a == b }
	kind := collection.Kind[chooser]{Key: chooser.key, Equal: same}
	all := collection.Join(same,
		collection.Map(d.services, kind, func(_ *collection.Read, s *ambient.Service) (chooser, bool) {
			return chooser{service: s}, len(s.Selector) > 0
		}),
		collection.Map(d.AuthorizationPolicies, kind, func(_ *collection.Read, p *securityv1.AuthorizationPolicy) (chooser, bool) {
			return chooser{policy: p}, len(p.Spec.GetSelector().GetMatchLabels()) > 0
		}),
		collection.Map(d.PeerAuthentications, kind, func(_ *collection.Read, p *securityv1.PeerAuthentication) (chooser, bool) {
			return chooser{peers: p}, len(p.Spec.GetSelector().GetMatchLabels()) > 0
		}))
	return collection.NewIndex(all, func(c chooser) []label {
		namespace, selector := c.where(d.RootNamespace)
		first := ""
		for k := range selector {
			if first == "" || k < first {
				first = k
			}
		}
		return []label{labelOf(namespace, first, selector[first])}
	})
}

// chosen are those who may select a workload with these labels in a namespace; each must still be asked.
func (d *deriver) chosen(r *collection.Read, namespace string, labels map[string]string) (services []*ambient.Service,
	policies []*securityv1.AuthorizationPolicy, peers []*securityv1.PeerAuthentication,
) {
	for k, v := range labels {
		for _, ns := range []string{namespace, ""} {
			for _, c := range collection.Lookup(r, d.choosing, labelOf(ns, k, v)) {
				switch {
				case c.service != nil:
					services = append(services, c.service)
				case c.policy != nil:
					policies = append(policies, c.policy)
				default:
					peers = append(peers, c.peers)
				}
			}
		}
	}
	return services, policies, peers
}
