package install

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// valuesOf are the values of charts that a spec comes to: its own values, over what the other parts of the spec say.
func valuesOf(spec tree) (tree, error) {
	out := tree{}
	for key, path := range map[string][]string{
		"hub": {"global", "hub"}, "tag": {"global", "tag"}, "namespace": {"global", "istioNamespace"},
		"revision": {"revision"}, "meshConfig": {"meshConfig"},
	} {
		if v, ok := spec[key]; ok {
			out = merge(out, nest(v, path...))
		}
	}
	components := subtree(spec, "components")
	if err := checkKeys("components.", components, []string{"base", "pilot", "cni", "ztunnel", "ingressGateways", "egressGateways"}); err != nil {
		return nil, err
	}
	for _, name := range []string{"base", "pilot", "cni", "ztunnel"} {
		c := subtree(components, name)
		v, err := componentValues("components."+name, c, false)
		if err != nil {
			return nil, err
		}
		if len(v) > 0 {
			out = merge(out, tree{name: v})
		}
	}
	for _, list := range []string{"ingressGateways", "egressGateways"} {
		all, _ := components[list].([]any)
		for i, e := range all {
			gw, _ := e.(map[string]any)
			v, err := componentValues(fmt.Sprintf("components.%s[%d]", list, i), gw, true)
			if err != nil {
				return nil, err
			}
			if name := text(gw["name"]); name != "" && len(v) > 0 {
				out = merge(out, tree{"gateways": tree{name: v}})
			}
		}
	}
	values := merge(subtree(spec, "values"), nil)
	if gws := subtree(values, "gateways"); gws != nil {
		flat := tree{}
		for name, v := range gws {
			g, _ := v.(map[string]any)
			flat[name] = gatewayValues(g)
		}
		values["gateways"] = flat
	}
	return merge(out, values), nil
}

func nest(v any, path ...string) tree {
	for _, p := range slices.Backward(path) {
		v = tree{p: v}
	}
	t, _ := v.(tree)
	return t
}

// componentValues are what the settings of a component, such as components.pilot.k8s.resources, are as values.
func componentValues(where string, c tree, gateway bool) (tree, error) {
	known := []string{"enabled", "k8s", "hub", "tag"}
	if gateway {
		known = append(known, "name", "namespace", "label")
	}
	if err := checkKeys(where+".", c, known); err != nil {
		return nil, err
	}
	out := tree{}
	for _, key := range []string{"hub", "tag"} {
		if v, ok := c[key]; ok {
			out[key] = v
		}
	}
	k8s := subtree(c, "k8s")
	for _, key := range slices.Sorted(maps.Keys(k8s)) {
		v := k8s[key]
		switch key {
		case "resources", "nodeSelector", "tolerations", "affinity", "podAnnotations", "replicaCount", "imagePullPolicy", "strategy", "securityContext":
			out[key] = v
		case "env":
			env, err := variables(where+".k8s.env", v)
			if err != nil {
				return nil, err
			}
			out[key] = env
		case "hpaSpec":
			out = merge(out, replicas(v, gateway))
		case "service", "serviceAnnotations":
			if key == "serviceAnnotations" {
				v = tree{"annotations": v}
			}
			if !gateway {
				return nil, fmt.Errorf("%s.k8s.%s: only gateways have it", where, key)
			}
			s, _ := v.(map[string]any)
			out = merge(out, tree{"service": s})
		default:
			return nil, fmt.Errorf("%s.k8s.%s is not supported: set it as a value of the chart (values.…), or change what `ambit manifest generate` prints", where, key)
		}
	}
	return out, nil
}

func variables(where string, v any) (tree, error) {
	list, _ := v.([]any)
	env := tree{}
	for i, e := range list {
		one, _ := e.(map[string]any)
		name := text(one["name"])
		if _, plain := one["value"]; name == "" || !plain {
			return nil, fmt.Errorf("%s[%d]: want a name and a value", where, i)
		}
		env[name] = one["value"]
	}
	return env, nil
}

func replicas(v any, gateway bool) tree {
	hpa, _ := v.(map[string]any)
	out := tree{}
	for from, to := range map[string]string{"minReplicas": "autoscaleMin", "maxReplicas": "autoscaleMax"} {
		n, ok := hpa[from]
		switch {
		case !ok:
		case gateway:
			out = merge(out, tree{"autoscaling": tree{from: n}})
		default:
			out[to] = n
		}
	}
	return out
}

// gatewayValues are the values of the chart gateway that those of Istio's older gateway charts, as in
// gateways.istio-ingressgateway, come to.
func gatewayValues(g tree) tree {
	out := tree{}
	for key, v := range g {
		switch key {
		case "ports", "type", "loadBalancerIP", "loadBalancerSourceRanges", "externalTrafficPolicy", "ipFamilyPolicy", "ipFamilies":
			out = merge(out, tree{"service": tree{key: v}})
		case "serviceAnnotations":
			out = merge(out, tree{"service": tree{"annotations": v}})
		case "autoscaleEnabled":
			out = merge(out, tree{"autoscaling": tree{"enabled": v}})
		case "autoscaleMin", "autoscaleMax":
			out = merge(out, tree{"autoscaling": tree{strings.TrimPrefix(strings.ToLower(key), "autoscale") + "Replicas": v}})
		default:
			out = merge(out, tree{key: v})
		}
	}
	return out
}
