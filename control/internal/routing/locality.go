package routing

import (
	"strings"

	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/collection"
)

// nearness orders endpoints by how near they are to a proxy.
type nearness struct {
	own    *workload.Workload // the proxy; nil if it is not known
	scopes []workload.LoadBalancing_Scope
	strict bool              // what is not in all scopes is not used
	to     map[string]string // region → the region that follows it
}

// nearness: a service that prefers near endpoints says how near; a rule with outlier detection prefers its own zone
// and region, because it would notice when those fail.
func (b *builder) nearness(r *collection.Read, s *workload.Service, ref Ref, t traffic) nearness {
	n := nearness{to: map[string]string{}}
	byLocality := []workload.LoadBalancing_Scope{workload.LoadBalancing_REGION, workload.LoadBalancing_ZONE, workload.LoadBalancing_SUBZONE}
	setting := t.balancer.GetLocalityLbSetting()
	enabled := setting.GetEnabled() == nil || setting.GetEnabled().GetValue()
	switch mode := s.GetLoadBalancing().GetMode(); {
	case t.outliers != nil && enabled:
		n.scopes = byLocality
		for _, f := range setting.GetFailover() {
			n.to[f.GetFrom()] = f.GetTo()
		}
	case mode == workload.LoadBalancing_STRICT || mode == workload.LoadBalancing_FAILOVER:
		n.scopes, n.strict = s.GetLoadBalancing().GetRoutingPreference(), mode == workload.LoadBalancing_STRICT
	}
	if len(n.scopes) == 0 {
		return n
	}
	for _, w := range collection.Lookup(r, b.byPod, ref.proxyNamespace()+"/"+ref.proxyPod()) {
		n.own = w
	}
	return n
}

// of is the priority of an endpoint, 0 for the nearest; false if it may not be used.
func (n nearness) of(w *workload.Workload) (uint32, bool) {
	if len(n.scopes) == 0 || n.own == nil {
		return 0, true
	}
	for i, scope := range n.scopes {
		if same(scope, n.own, w) {
			continue
		}
		if n.strict {
			return 0, false
		}
		left := uint32(len(n.scopes) - i)
		if region := w.GetLocality().GetRegion(); scope == workload.LoadBalancing_REGION && len(n.to) > 0 && n.to[n.own.GetLocality().GetRegion()] != region {
			left++
		}
		return left, true
	}
	return 0, true
}

func same(scope workload.LoadBalancing_Scope, a, b *workload.Workload) bool {
	if a.GetLocality() == nil && (scope == workload.LoadBalancing_REGION || scope == workload.LoadBalancing_ZONE || scope == workload.LoadBalancing_SUBZONE) {
		return true // a proxy that does not know where it is prefers nobody
	}
	switch scope {
	case workload.LoadBalancing_REGION:
		return a.GetLocality().GetRegion() == b.GetLocality().GetRegion()
	case workload.LoadBalancing_ZONE:
		return a.GetLocality().GetZone() == b.GetLocality().GetZone()
	case workload.LoadBalancing_SUBZONE:
		return a.GetLocality().GetSubzone() == b.GetLocality().GetSubzone()
	case workload.LoadBalancing_NODE:
		return a.GetNode() == b.GetNode()
	case workload.LoadBalancing_CLUSTER:
		return a.GetClusterId() == b.GetClusterId()
	case workload.LoadBalancing_NETWORK:
		return a.GetNetwork() == b.GetNetwork()
	}
	return true
}

// podKeys files a workload that is a pod under "namespace/name".
func podKeys(w *workload.Workload) []string {
	key := w.GetNamespace() + "/" + w.GetName()
	if !strings.HasSuffix(w.GetUid(), "//Pod/"+key) {
		return nil
	}
	return []string{key}
}
