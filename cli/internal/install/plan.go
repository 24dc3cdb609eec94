package install

import (
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"github.com/ambit-mesh/ambit/mesh"
)

// Labels of what an installation owns.
const (
	labelManaged   = "app.kubernetes.io/managed-by"
	labelComponent = "operator.istio.io/component"
	labelRevision  = "istio.io/rev"
	manager        = "ambit"
)

// Step is one component: what to apply, and then to wait for.
type Step struct {
	// Name and Icon, as in "✔ Istiod installed 🧠".
	Name, Icon string
	Objects    []*Object
}

// Plan is what an installation will be.
type Plan struct {
	Profile, Revision, Namespace string
	// Platform is global.platform; Detected says that it is ours and not the user's.
	Platform string
	Detected bool
	Values   map[string]any
	Steps    []Step
}

// Objects of all steps, in order.
func (p *Plan) Objects() []*Object {
	var all []*Object
	for _, s := range p.Steps {
		all = append(all, s.Objects...)
	}
	return all
}

// Ambient reports whether the plan has a data plane.
func (p *Plan) Ambient() bool {
	return slices.ContainsFunc(p.Steps, func(s Step) bool { return s.Name == "Ztunnel" })
}

// Source is where a plan's charts and image tag come from.
type Source struct {
	Charts  fs.FS
	Version string
	// Platform of the cluster, as detected; "" if it is none that needs anything.
	Platform string
}

// Make renders a plan.
func Make(from Source, o Options) (*Plan, error) {
	spec, profile, err := specOf(o)
	if err != nil {
		return nil, err
	}
	values, err := valuesOf(spec)
	if err != nil {
		return nil, err
	}
	p := &Plan{Profile: profile, Namespace: mesh.SystemNamespace, Revision: text(values["revision"])}
	if p.Platform = text(at(values, "global", "platform")); p.Platform == "" {
		p.Platform = text(values["platform"])
	}
	if p.Platform == "" && from.Platform != "" {
		p.Platform, p.Detected = from.Platform, true
		values = merge(values, tree{"global": tree{"platform": from.Platform}})
	}
	if p.Platform == "none" { // how a user says that ours is wrong
		values = merge(values, tree{"global": tree{"platform": ""}})
		p.Platform = ""
	}
	if ns := text(at(values, "global", "istioNamespace")); ns != "" {
		p.Namespace = ns
	}
	if err := checkValues(from.Charts, values); err != nil {
		return nil, err
	}
	p.Values = values
	return p, p.render(from, spec)
}

func (p *Plan) render(from Source, spec tree) error {
	type part struct{ component, chart, name, icon string }
	for _, c := range []part{
		{"base", "base", "Istio core", "⛵️"},
		{"pilot", "istiod", "Istiod", "🧠"},
		{"cni", "cni", "CNI", "🪢"},
		{"ztunnel", "ztunnel", "Ztunnel", "🔒"},
	} {
		if on, _ := at(spec, "components", c.component, "enabled").(bool); !on {
			continue
		}
		objects, err := p.chart(from, c.chart, c.chart, p.Values)
		if err != nil {
			return err
		}
		if c.component == "base" {
			objects = append([]*Object{p.namespace()}, objects...)
		}
		p.Steps = append(p.Steps, Step{Name: c.name, Icon: c.icon, Objects: sorted(objects)})
	}
	for _, g := range []part{{"ingressGateways", "gateway", "Ingress gateways", "🛬"}, {"egressGateways", "gateway", "Egress gateways", "🛫"}} {
		step := Step{Name: g.name, Icon: g.icon}
		list, _ := at(spec, "components", g.component).([]any)
		for _, e := range list {
			gw, _ := e.(map[string]any)
			if on, _ := gw["enabled"].(bool); !on {
				continue
			}
			objects, err := p.gateway(from, gw)
			if err != nil {
				return err
			}
			step.Objects = append(step.Objects, objects...)
		}
		if len(step.Objects) > 0 {
			sorted(step.Objects)
			p.Steps = append(p.Steps, step)
		}
	}
	if len(p.Steps) > 0 && p.Steps[0].Name != "Istio core" {
		p.Steps[0].Objects = append([]*Object{p.namespace()}, p.Steps[0].Objects...)
	}
	return nil
}

// gateway renders one gateway of the components.
func (p *Plan) gateway(from Source, gw tree) ([]*Object, error) {
	name := text(gw["name"])
	if name == "" {
		return nil, fmt.Errorf("a gateway among components has no name")
	}
	values := merge(p.Values, nil)
	own := merge(subtree(p.Values, "gateways", name), tree{"name": name})
	if labels := subtree(gw, "label"); labels != nil {
		own = merge(own, tree{"labels": labels})
	}
	delete(own, "enabled")
	values["gateways"] = own
	namespace := p.Namespace
	if ns := text(gw["namespace"]); ns != "" {
		namespace = ns
	}
	return p.chartIn(from, "gateway", name, namespace, values)
}

func (p *Plan) chart(from Source, chart, name string, values tree) ([]*Object, error) {
	return p.chartIn(from, chart, name, p.Namespace, values)
}

func (p *Plan) chartIn(from Source, chart, name, namespace string, values tree) ([]*Object, error) {
	known, err := defaultsOf(from.Charts, chart)
	if err != nil {
		return nil, err
	}
	own := maps.Clone(values)
	maps.DeleteFunc(own, func(key string, _ any) bool { // such as the mesh's configuration, which is not for every chart
		_, ok := known[key]
		return !ok && key != section(chart)
	})
	objects, err := render(from.Charts, chart, release{name: name, namespace: namespace, service: manager, version: from.Version}, own)
	if err != nil {
		return nil, err
	}
	for _, o := range objects {
		p.own(o)
	}
	return objects, nil
}

func section(chart string) string {
	switch chart {
	case "istiod":
		return "pilot"
	case "gateway":
		return "gateways"
	}
	return chart
}

// own marks an object as ours.
func (p *Plan) own(o *Object) {
	labels := o.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	labels[labelManaged] = manager
	if _, ok := labels[labelRevision]; !ok {
		labels[labelRevision] = "default" // there is one for all revisions
	}
	o.SetLabels(labels)
}

func (p *Plan) namespace() *Object {
	o := &Object{}
	o.SetAPIVersion("v1")
	o.SetKind("Namespace")
	o.SetName(p.Namespace)
	// Node agent and ztunnel need more than the cluster's own level may give.
	o.SetLabels(map[string]string{labelComponent: "Base", "pod-security.kubernetes.io/enforce": "privileged"})
	p.own(o)
	return o
}
