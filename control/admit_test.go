package control

import (
	"testing"

	"github.com/ambit-mesh/ambit/api/discovery"
	"github.com/ambit-mesh/ambit/control/source"
)

// XD-02: a node is who its token says, whatever it calls itself.
func TestNodesAreHeldToTheirTokens(t *testing.T) {
	d := door{nodeAccounts: []string{"istio-system/ztunnel"}}
	ztunnel := source.Caller{Namespace: "istio-system", ServiceAccount: "ztunnel", Pod: "ztunnel-1"}
	web := source.Caller{Namespace: "default", ServiceAccount: "web", Pod: "web-1.v2"}
	for _, c := range []struct {
		name   string
		caller source.Caller
		node   string
		ok     bool
	}{
		{"a ztunnel", ztunnel, "ztunnel~10.0.0.1~ztunnel-1.istio-system~istio-system.svc.cluster.local", true},
		{"a gateway, and a dot in the pod's name", web, "router~10.0.0.1~web-1.v2.default~default.svc.cluster.local", true},
		{"a workload as a ztunnel", web, "ztunnel~10.0.0.1~web-1.v2.default~default.svc.cluster.local", false},
		{"another pod", web, "router~10.0.0.1~web-2.default~default.svc.cluster.local", false},
		{"another namespace", web, "router~10.0.0.1~web-1.v2.istio-system~istio-system.svc.cluster.local", false},
		{"no id", web, "", false},
		{"no namespace", web, "router~10.0.0.1~web~x", false},
	} {
		if err := d.admit(c.caller, &discovery.Node{Id: c.node}); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if d.admit(web, nil) == nil {
		t.Error("a proxy that does not introduce itself is admitted")
	}
}
