package ambient

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/mesh"
)

const waypointController = "istio.io/mesh-controller"

// Waypoint is a Gateway that traffic can be sent through.
type Waypoint struct {
	Namespace, Name string
	For             string // service, workload, all, none

	address *workload.GatewayAddress
	from    gatewayv1.FromNamespaces
	who     labels.Selector // with from = Selector
}

// Key is "namespace/name", as its Gateway is filed.
func (w *Waypoint) Key() string { return w.Namespace + "/" + w.Name }

// Address is where the waypoint listens; nil for no waypoint.
func (w *Waypoint) Address() *workload.GatewayAddress {
	if w == nil {
		return nil
	}
	return w.address
}

// FromGateway makes the waypoint of a Gateway that already has addresses, and nil of any other.
func (c Config) FromGateway(g *gatewayv1.Gateway, class *gatewayv1.GatewayClass) *Waypoint {
	if len(g.Status.Addresses) == 0 {
		return nil
	}
	if class == nil {
		class = &gatewayv1.GatewayClass{} // Istio's own class means itself even where its object is missing
		if g.Spec.GatewayClassName == "istio-waypoint" {
			class.Spec.ControllerName = waypointController
		}
	}
	if class.Spec.ControllerName != waypointController {
		return nil
	}
	w := &Waypoint{Namespace: g.Namespace, Name: g.Name, For: "service", from: gatewayv1.NamespacesFromSame}
	if f, ok := class.Labels[mesh.LabelWaypointFor]; ok {
		w.For = f
	}
	if f, ok := g.Labels[mesh.LabelWaypointFor]; ok {
		w.For = f
	}
	w.address = c.gatewayAddress(g)
	if w.address == nil {
		return nil
	}
	for _, l := range g.Spec.Listeners {
		if l.Protocol != "HBONE" || l.AllowedRoutes == nil || l.AllowedRoutes.Namespaces == nil {
			continue
		}
		if f := l.AllowedRoutes.Namespaces.From; f != nil {
			w.from = *f
		}
		if s, err := metav1.LabelSelectorAsSelector(l.AllowedRoutes.Namespaces.Selector); err == nil {
			w.who = s
		}
	}
	return w
}

// gatewayAddress prefers a host name, which stays when the address changes.
func (c Config) gatewayAddress(g *gatewayv1.Gateway) *workload.GatewayAddress {
	for _, a := range g.Status.Addresses {
		if a.Type != nil && *a.Type == gatewayv1.HostnameAddressType && a.Value != "" {
			return &workload.GatewayAddress{
				Destination:   &workload.GatewayAddress_Hostname{Hostname: &workload.NamespacedHostname{Namespace: g.Namespace, Hostname: a.Value}},
				HboneMtlsPort: mesh.PortHBONE,
			}
		}
	}
	for _, a := range g.Status.Addresses {
		if n, ok := c.networkAddress(a.Value); ok && n.Length == nil {
			return &workload.GatewayAddress{Destination: &workload.GatewayAddress_Address{Address: n}, HboneMtlsPort: mesh.PortHBONE}
		}
	}
	return nil
}

// Admits reports whether the waypoint's owner lets things of namespace ns use it.
func (w *Waypoint) Admits(ns string, namespace *corev1.Namespace) bool {
	switch w.from {
	case gatewayv1.NamespacesFromAll:
		return true
	case gatewayv1.NamespacesFromSelector:
		return w.who != nil && namespace != nil && w.who.Matches(labels.Set(namespace.Labels))
	}
	return w.Namespace == ns
}

// Use is the waypoint that an object asks for, by its own labels or by its namespace's.
func Use(o metav1.Object, ns *corev1.Namespace) (key string, own, ok bool) {
	if key, none := use(o.GetLabels(), o.GetNamespace()); key != "" || none {
		return key, true, !none
	}
	if ns == nil {
		return "", false, false
	}
	key, _ = use(ns.Labels, o.GetNamespace())
	return key, false, key != ""
}

func use(labels map[string]string, namespace string) (key string, none bool) {
	name := labels[mesh.LabelUseWaypoint]
	switch name {
	case "":
		return "", false
	case "none":
		return "", true
	}
	if ns := labels[mesh.LabelUseWaypointNamespace]; ns != "" {
		namespace = ns
	}
	return namespace + "/" + name, false
}

// Binding says which waypoint an object goes through, or why it goes through none although it asked.
type Binding struct {
	Waypoint *Waypoint
	Asked    string // key of the waypoint asked for, "" for none
	Reason   string // of the condition istio.io/WaypointBound
	Why      string
}

// Bind decides for an object that carries traffic of a kind: "service" or "workload".
func Bind(o metav1.Object, ns *corev1.Namespace, traffic string, find func(key string) *Waypoint) Binding {
	if o.GetLabels()[mesh.LabelGatewayManaged] != "" {
		return Binding{} // a waypoint goes through no waypoint
	}
	key, own, ok := Use(o, ns)
	if !ok {
		return Binding{}
	}
	b := Binding{Asked: key}
	w := find(key)
	switch {
	case w == nil:
		b.Reason, b.Why = "WaypointIsNotReady", "waypoint "+key+" is not ready"
	case !w.Admits(o.GetNamespace(), ns):
		b.Reason, b.Why = "AttachmentDenied", "namespace "+o.GetNamespace()+" may not use waypoint "+key
	case w.For == traffic || w.For == "all":
		b.Waypoint, b.Reason, b.Why = w, "WaypointAccepted", "bound to "+key
	case own:
		b.Reason, b.Why = "UnsupportedTrafficType", "waypoint "+key+" carries no "+traffic+" traffic"
	default:
		return Binding{} // a namespace's waypoint for services says nothing of its workloads
	}
	return b
}
