package analyze

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/mesh"
)

// world is what the objects are, found by what others call them.
type world struct {
	live       bool
	unseen     []string
	domain     string // of trust
	all        []kinds.Located
	namespaces map[string]*corev1.Namespace
	pods       []pod
	podsBy     map[string][]int // places in pods, by namespace and label, or by either
	servicesIn map[string][]*corev1.Service
	services   map[string]*corev1.Service // by host name
	entries    map[string]*networkingv1.ServiceEntry
	gateways   map[string]*networkingv1.Gateway
	waypoints  map[string]*gatewayv1.Gateway
	secrets    map[string]*corev1.Secret
	accounts   map[string]bool
	rules      map[string][]string // subsets of DestinationRules by host name
}

// pod is a pod, or what a workload's template makes.
type pod struct {
	kinds.Located
	namespace   string
	labels      map[string]string
	annotations map[string]string
	spec        corev1.PodSpec
	running     *corev1.Pod // nil for a template
}

// each calls f for every object of a type.
func each[T kinds.Object](a *analysis, f func(kinds.Located, T)) {
	for _, l := range a.all {
		if o, ok := l.Object.(T); ok {
			f(l, o)
		}
	}
}

func know(in Input) world {
	w := world{
		live: in.Live, unseen: in.Unseen, domain: cmp.Or(in.TrustDomain, mesh.TrustDomain), all: slices.Clone(in.Objects),
		namespaces: map[string]*corev1.Namespace{}, services: map[string]*corev1.Service{}, entries: map[string]*networkingv1.ServiceEntry{},
		gateways: map[string]*networkingv1.Gateway{}, waypoints: map[string]*gatewayv1.Gateway{}, secrets: map[string]*corev1.Secret{},
		accounts: map[string]bool{}, rules: map[string][]string{}, podsBy: map[string][]int{}, servicesIn: map[string][]*corev1.Service{},
	}
	slices.SortStableFunc(w.all, func(a, b kinds.Located) int { return strings.Compare(keyOf(a.Object), keyOf(b.Object)) })
	for _, l := range w.all {
		w.learn(l)
	}
	return w
}

func keyOf(o kinds.Object) string { return o.GetNamespace() + "/" + o.GetName() }

func (w *world) learn(l kinds.Located) {
	switch o := l.Object.(type) {
	case *corev1.Namespace:
		w.namespaces[o.Name] = o
	case *corev1.Service:
		w.services[fqdn(o.Name, o.Namespace)] = o
		w.servicesIn[o.Namespace] = append(w.servicesIn[o.Namespace], o)
	case *corev1.Secret:
		w.secrets[keyOf(o)] = o
	case *corev1.ServiceAccount:
		w.accounts[keyOf(o)] = true
	case *networkingv1.ServiceEntry:
		for _, h := range o.Spec.GetHosts() {
			w.entries[h] = o
		}
	case *networkingv1.Gateway:
		w.gateways[keyOf(o)] = o
	case *gatewayv1.Gateway:
		w.waypoints[keyOf(o)] = o
	case *networkingv1.DestinationRule:
		host := fqdn(o.Spec.GetHost(), o.Namespace)
		for _, s := range o.Spec.GetSubsets() {
			w.rules[host] = append(w.rules[host], s.GetName())
		}
	}
	if p, ok := podOf(l); ok {
		keys := []string{p.namespace + " "}
		for k, v := range p.labels {
			keys = append(keys, p.namespace+" "+k+"="+v, " "+k+"="+v)
		}
		for _, key := range keys {
			w.podsBy[key] = append(w.podsBy[key], len(w.pods))
		}
		w.pods = append(w.pods, p)
		w.accounts[p.namespace+"/"+cmp.Or(p.spec.ServiceAccountName, "default")] = true
	}
}

// podOf is the pod that an object is or makes.
func podOf(l kinds.Located) (pod, bool) {
	p := pod{Located: l, namespace: l.Object.GetNamespace()}
	var t corev1.PodTemplateSpec
	switch o := l.Object.(type) {
	case *corev1.Pod:
		p.labels, p.annotations, p.spec, p.running = o.Labels, o.Annotations, o.Spec, o
		return p, true
	case *appsv1.Deployment:
		t = o.Spec.Template
	case *appsv1.DaemonSet:
		t = o.Spec.Template
	case *appsv1.StatefulSet:
		t = o.Spec.Template
	case *appsv1.ReplicaSet:
		t = o.Spec.Template
	case *batchv1.Job:
		t = o.Spec.Template
	case *batchv1.CronJob:
		t = o.Spec.JobTemplate.Spec.Template
	default:
		return p, false
	}
	p.labels, p.annotations, p.spec = t.Labels, t.Annotations, t.Spec
	return p, true
}

// selected are the pods behind a selector: in namespace, or anywhere if that is "".
func (w *world) selected(selector map[string]string, namespace string) []pod {
	if len(selector) == 0 && namespace == "" {
		return slices.Clone(w.pods)
	}
	places, first := w.podsBy[namespace+" "], true
	for k, v := range selector {
		if with := w.podsBy[namespace+" "+k+"="+v]; first && namespace == "" || len(with) < len(places) {
			places = with
		}
		first = false
	}
	var some []pod
	for _, i := range places {
		if within(selector, w.pods[i].labels) {
			some = append(some, w.pods[i])
		}
	}
	return some
}

// behind are the services that select a pod.
func (w *world) behind(p pod) []*corev1.Service {
	var some []*corev1.Service
	for _, s := range w.servicesIn[p.namespace] {
		if len(s.Spec.Selector) > 0 && within(s.Spec.Selector, p.labels) {
			some = append(some, s)
		}
	}
	return some
}

// policyPods are those that a policy of a namespace selects; the root namespace's are for all.
func (w *world) policyPods(selector map[string]string, namespace string) []pod {
	if namespace == mesh.SystemNamespace {
		namespace = ""
	}
	return slices.DeleteFunc(w.selected(selector, namespace), func(p pod) bool { return system(p.namespace) && namespace == "" && len(selector) == 0 })
}

// enrolled tells whether a pod is asked to be in the mesh.
func (w *world) enrolled(p pod) bool {
	if p.spec.HostNetwork {
		return false
	}
	switch p.labels[mesh.LabelDataplaneMode] {
	case mesh.DataplaneModeAmbient:
		return true
	case mesh.DataplaneModeNone:
		return false
	}
	return w.ambient(p.namespace)
}

func (w *world) ambient(namespace string) bool {
	ns := w.namespaces[namespace]
	return ns != nil && ns.Labels[mesh.LabelDataplaneMode] == mesh.DataplaneModeAmbient
}

// knows tells whether what is said of a namespace can be judged: all of a cluster is, of files only what they hold.
func (w *world) knows(namespace string) bool { return w.live || w.namespaces[namespace] != nil }

// host finds what a name of a namespace stands for: a service, an entry, or nothing.
func (w *world) host(name, namespace string) (*corev1.Service, *networkingv1.ServiceEntry) {
	full := fqdn(name, namespace)
	if s := w.services[full]; s != nil {
		return s, nil
	}
	for _, candidate := range []string{name, full} {
		if e := w.entries[candidate]; e != nil {
			return nil, e
		}
		for at := strings.IndexByte(candidate, '.'); at >= 0; {
			if e := w.entries["*"+candidate[at:]]; e != nil {
				return nil, e
			}
			next := strings.IndexByte(candidate[at+1:], '.')
			if next < 0 {
				break
			}
			at += next + 1
		}
	}
	return nil, nil
}

// system tells whether a namespace belongs to the cluster or the mesh, not to applications.
func system(namespace string) bool {
	return namespace == mesh.SystemNamespace || strings.HasPrefix(namespace, "kube-")
}

func within(selector, labels map[string]string) bool {
	for k, v := range selector {
		if have, ok := labels[k]; !ok || have != v {
			return false
		}
	}
	return true
}

func text(labels map[string]string) string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		all = append(all, fmt.Sprintf("%s=%s", k, labels[k]))
	}
	return strings.Join(all, ",")
}

// fqdn completes a short name of a service.
func fqdn(host, namespace string) string {
	switch strings.Count(host, ".") {
	case 0:
		return host + "." + namespace + ".svc." + mesh.ClusterDomain
	case 1:
		return host + ".svc." + mesh.ClusterDomain
	}
	if strings.HasSuffix(host, ".svc") {
		return host + "." + mesh.ClusterDomain
	}
	return host
}

// selectorOf is the selector of a kind of policy that has one, and whether it is bound to targets instead.
func selectorOf(o kinds.Object) (selector map[string]string, targets, ok bool) {
	switch p := o.(type) {
	case *securityv1.AuthorizationPolicy:
		return p.Spec.GetSelector().GetMatchLabels(), p.Spec.TargetRef != nil || len(p.Spec.TargetRefs) > 0, true
	case *securityv1.RequestAuthentication:
		return p.Spec.GetSelector().GetMatchLabels(), p.Spec.TargetRef != nil || len(p.Spec.TargetRefs) > 0, true
	case *securityv1.PeerAuthentication:
		return p.Spec.GetSelector().GetMatchLabels(), false, true
	}
	return nil, false, false
}
