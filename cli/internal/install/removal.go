package install

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Removal is what an uninstallation will take away.
type Removal struct {
	// Objects in the order in which they go.
	Objects []Object
	// Written is what the control plane has written that goes too.
	Written []Object
	// Definitions are ours, with how many objects go with them; only with purge.
	Definitions []Definition
	// Namespaces are those that the installer made.
	Namespaces []string
	// Stays says what one might expect to go, and why it does not.
	Stays []string
	purge bool
}

// Empty reports whether there is nothing to do.
func (r *Removal) Empty() bool {
	return len(r.Objects)+len(r.Written)+len(r.Definitions)+len(r.Namespaces) == 0
}

// Definition is a custom resource definition and how many objects there are of it.
type Definition struct {
	Name    string
	Objects int
	object  Object
}

// Removal finds what is ours: with purge, definitions and the certificate authority's key too.
func (i *Installer) Removal(ctx context.Context, purge bool) (*Removal, error) {
	r := &Removal{purge: purge}
	for _, k := range slices.Backward(installable()) {
		items, err := i.Cluster.list(ctx, k, "", labelManaged+"="+manager)
		if err != nil {
			return nil, err
		}
		for _, o := range items {
			switch k.name {
			case "Namespace":
				r.Namespaces = append(r.Namespaces, o.GetName())
			case "CustomResourceDefinition":
				if purge {
					if err := i.define(ctx, r, o); err != nil {
						return nil, err
					}
				}
			default:
				r.Objects = append(r.Objects, o)
			}
		}
	}
	slices.SortStableFunc(r.Objects, func(a, b Object) int { return leaves(&a) - leaves(&b) })
	if err := i.shared(ctx, r); err != nil {
		return nil, err
	}
	written, kept, err := i.written(ctx, purge)
	for _, o := range kept {
		r.Stays = append(r.Stays, fmt.Sprintf("%s: %s has written it", describe(&o), strings.Join(managersOf(&o, "data"), ", ")))
	}
	r.Written = written
	return r, err
}

// leaves is the order in which things go: what judges new objects, then what captures traffic, and only then what carries it; last
// the rights, which the node agents need to take themselves out.
func leaves(o *Object) int {
	switch k := o.GetKind(); {
	case k == "ValidatingWebhookConfiguration":
		return 0
	case k == "DaemonSet" && o.GetLabels()[labelComponent] == "Cni":
		return 1
	case k == "HorizontalPodAutoscaler":
		return 2
	case k == "DaemonSet", k == "Deployment":
		return 3
	}
	return 4
}

// define adds a definition, unless another has written over it.
func (i *Installer) define(ctx context.Context, r *Removal, o Object) error {
	if !ourDefinition(&o) {
		r.Stays = append(r.Stays, fmt.Sprintf("%s: %s has written over it", describe(&o), strings.Join(managersOf(&o, "spec", "versions"), ", ")))
		return nil
	}
	d, err := i.definition(ctx, o)
	r.Definitions = append(r.Definitions, d)
	return err
}

func (i *Installer) definition(ctx context.Context, o Object) (Definition, error) {
	d := Definition{Name: o.GetName(), object: o}
	group, _, _ := unstructured.NestedString(o.Object, "spec", "group")
	plural, _, _ := unstructured.NestedString(o.Object, "spec", "names", "plural")
	versions, _, _ := unstructured.NestedSlice(o.Object, "spec", "versions")
	for _, v := range versions {
		m, _ := v.(map[string]any)
		if served, _ := m["served"].(bool); !served {
			continue
		}
		items, err := i.Cluster.list(ctx, kind{group: group, version: nameOf(m), plural: plural}, "", "")
		if err != nil {
			return d, err
		}
		d.Objects = len(items)
		break
	}
	return d, nil
}

// shared keeps the definitions of the Gateway API where another product has its class: its Gateways would go with them.
func (i *Installer) shared(ctx context.Context, r *Removal) error {
	const group = ".gateway.networking.k8s.io"
	if !slices.ContainsFunc(r.Definitions, func(d Definition) bool { return strings.HasSuffix(d.Name, group) }) {
		return nil
	}
	classes, err := i.Cluster.list(ctx, kind{"gateway.networking.k8s.io", "v1", "GatewayClass", "gatewayclasses", true}, "", "")
	if err != nil {
		return err
	}
	for _, c := range classes {
		controller, _, _ := unstructured.NestedString(c.Object, "spec", "controllerName")
		if strings.HasPrefix(controller, "istio.io/") {
			continue
		}
		r.Definitions = slices.DeleteFunc(r.Definitions, func(d Definition) bool { return strings.HasSuffix(d.Name, group) })
		r.Stays = append(r.Stays, fmt.Sprintf("definitions of the Gateway API: %s is of %s, which uses them", describe(&c), controller))
		break
	}
	return nil
}
