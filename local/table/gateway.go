package table

import (
	"cmp"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// gatewayColumns are those of the kinds of gateway.networking.k8s.io.
func gatewayColumns(kind string) []column {
	switch kind {
	case "Gateway":
		return []column{
			col("CLASS", func(g *gatewayv1.Gateway) string { return string(g.Spec.GatewayClassName) }),
			col("ADDRESS", func(g *gatewayv1.Gateway) string {
				if len(g.Status.Addresses) == 0 {
					return ""
				}
				return g.Status.Addresses[0].Value
			}),
			col("PROGRAMMED", func(g *gatewayv1.Gateway) string { return conditionOf(g.Status.Conditions, "Programmed") }), age(),
		}
	case "GatewayClass":
		return []column{
			col("CONTROLLER", func(c *gatewayv1.GatewayClass) string { return string(c.Spec.ControllerName) }),
			col("ACCEPTED", func(c *gatewayv1.GatewayClass) string { return conditionOf(c.Status.Conditions, "Accepted") }), age(),
		}
	case "HTTPRoute":
		return []column{col("HOSTNAMES", func(r *gatewayv1.HTTPRoute) string {
			var hosts []string
			for _, h := range r.Spec.Hostnames {
				hosts = append(hosts, string(h))
			}
			return list(hosts)
		}), age()}
	}
	return []column{age()}
}

func conditionOf(all []metav1.Condition, kind string) string {
	for _, c := range all {
		if c.Type == kind {
			return string(cmp.Or(c.Status, metav1.ConditionUnknown))
		}
	}
	return string(metav1.ConditionUnknown)
}
