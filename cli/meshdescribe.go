package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/ambit-mesh/ambit/cli/internal/analyze"
	"github.com/ambit-mesh/ambit/cli/internal/zdump"
	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/mesh"
)

func newMeshDescribe(env Env) *cobra.Command {
	c := group(&cobra.Command{
		Use: "describe", Short: "Tell what the mesh makes of a pod or a service",
		Example: "  ambit x describe pod deploy/productpage-v1\n  ambit x describe service productpage",
	})
	for _, what := range []struct {
		name, short, example string
		alias                []string
		tell                 func(*look, context.Context, string) (*page, error)
		offers               func(*look) completer
	}{
		{"pod", "Tell what the mesh makes of a pod", "  ambit x describe pod deploy/productpage-v1", []string{"po"}, (*look).describePod, func(l *look) completer { return l.somePods(captured) }},
		{"service", "Tell what the mesh makes of a service", "  ambit x describe service productpage.shop", []string{"svc"}, (*look).describeService, func(l *look) completer { return l.objects("services") }},
	} {
		l := newLook(env)
		sub := &cobra.Command{
			Use: what.name + " NAME[.NAMESPACE]", Aliases: what.alias, Short: what.short, Args: cobra.ExactArgs(1), Example: what.example,
			RunE: func(c *cobra.Command, args []string) error {
				p, err := what.tell(l, c.Context(), args[0])
				if err != nil {
					return err
				}
				if err := p.write(env.Out, widthOf(env.Out), newPaint(env.Out)); err != nil || !p.failed {
					return err
				}
				return exitStatus(1)
			},
		}
		l.flags(sub)
		sub.Flags().StringVarP(&l.namespace, "namespace", "n", "default", "namespace of the name")
		l.completeNamespace(sub)
		sub.ValidArgsFunction = cobra.CompletionFunc(what.offers(l))
		c.AddCommand(sub)
	}
	return c
}

// captured tells whether a pod's traffic is a ztunnel's.
func captured(p *corev1.Pod) bool {
	return p.Annotations[mesh.AnnotationRedirection] == mesh.RedirectionEnabled
}

func (l *look) describePod(ctx context.Context, name string) (*page, error) {
	pod, err := l.onePod(ctx, name)
	if err != nil {
		return nil, err
	}
	p := &page{title: fmt.Sprintf("Pod %s.%s at %s on %s", pod.Name, pod.Namespace, cmp.Or(pod.Status.PodIP, "no address"), cmp.Or(pod.Spec.NodeName, "no node"))}
	if !ready(pod) && pod.Status.Phase != corev1.PodSucceeded {
		p.say("state", wary, "not ready: %s", cmp.Or(l.trouble(ctx, pod), string(pod.Status.Phase)))
	}
	var d *zdump.Dump
	switch {
	case captured(pod):
		var z *corev1.Pod
		if z, d, err = l.servant(ctx, pod); err != nil {
			p.fail("mesh", "captured, and its ztunnel cannot be asked: %v", err)
			break
		}
		p.say("mesh", fine, "in it: %s serves the pod", z.Name)
		l.identity(p, d, pod)
	case native(pod) != "":
		p.say("mesh", plain, "%s speaks HBONE itself", native(pod))
	default:
		p.say("mesh", wary, "not in it: %s", l.uncaptured(ctx, pod))
	}
	if err := l.servicesOf(ctx, p, pod); err != nil {
		return nil, err
	}
	if d != nil {
		if err := enforced(p, d, pod.Namespace, pod.Name); err != nil {
			return nil, err
		}
	}
	return p, l.findings(ctx, p, kindNamed("pods"), pod)
}

// servant is the ztunnel of a pod's node, with what it knows.
func (l *look) servant(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, *zdump.Dump, error) {
	z, err := l.ztunnels(ctx, pod.Spec.NodeName, "")
	if err != nil {
		return nil, nil, err
	}
	d, err := l.dump(ctx, z[0])
	return z[0], d, err
}

// identity tells a pod's, and until when it can prove it.
func (l *look) identity(p *page, d *zdump.Dump, pod *corev1.Pod) {
	id := fmt.Sprintf("/ns/%s/sa/%s", pod.Namespace, cmp.Or(pod.Spec.ServiceAccountName, "default"))
	for _, c := range d.Certificates {
		if strings.HasSuffix(c.Identity, id) {
			if len(c.Chain) == 0 {
				p.say("identity", bad, "%s, without a certificate yet", c.Identity)
				return
			}
			p.say("identity", plain, "%s, certificate valid until %s", c.Identity, c.Chain[0].Until)
			return
		}
	}
	domain := mesh.TrustDomain
	if len(d.Certificates) > 0 { // all are of one
		domain, _, _ = strings.Cut(strings.TrimPrefix(d.Certificates[0].Identity, "spiffe://"), "/")
	}
	p.say("identity", plain, "spiffe://%s%s, no certificate asked for yet", domain, id)
}

// servicesOf tells which services a pod is behind, and from where the ingress leads to them.
func (l *look) servicesOf(ctx context.Context, p *page, pod *corev1.Pod) error {
	objects, err := l.mesh().List(ctx, kindNamed("services"), pod.Namespace, "")
	if err != nil {
		return err
	}
	var found []*corev1.Service
	for _, o := range objects {
		if s, ok := o.(*corev1.Service); ok && len(s.Spec.Selector) > 0 && labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(pod.Labels)) {
			found = append(found, s)
		}
	}
	if len(found) == 0 {
		p.say("services", plain, "none selects it")
		return nil
	}
	for i, s := range found {
		text := fmt.Sprintf("%s (%s): %s", s.Name, cmp.Or(s.Spec.ClusterIP, "no address"), portsOf(s))
		if i == 0 {
			p.say("services", plain, "%s", text)
		} else {
			p.more(plain, "%s", text)
		}
	}
	for _, s := range found {
		l.ingress(ctx, p, s)
	}
	return nil
}

func portsOf(s *corev1.Service) string {
	var all []string
	for _, port := range s.Spec.Ports {
		target := port.TargetPort.String()
		if target == "0" || target == "" {
			target = fmt.Sprint(port.Port)
		}
		all = append(all, strings.TrimSpace(fmt.Sprintf("%s %d → %s", port.Name, port.Port, target)))
	}
	return strings.Join(all, ", ")
}

// ingress tells which routes of gateways lead to a service.
func (l *look) ingress(ctx context.Context, p *page, s *corev1.Service) {
	objects, err := l.mesh().List(ctx, kindNamed("virtualservices"), "", "")
	if err != nil {
		p.fail("ingress", "not known: %v", err)
		return
	}
	full := s.Name + "." + s.Namespace + ".svc." + mesh.ClusterDomain
	for _, o := range objects {
		v, ok := o.(*networkingv1.VirtualService)
		if !ok || len(v.Spec.GetGateways()) == 0 || slices.Equal(v.Spec.GetGateways(), []string{"mesh"}) {
			continue
		}
		for _, r := range v.Spec.GetHttp() {
			for _, d := range r.GetRoute() {
				h := d.GetDestination().GetHost()
				if h == full || h == s.Name && v.Namespace == s.Namespace || h == s.Name+"."+s.Namespace || h == s.Name+"."+s.Namespace+".svc" {
					p.say("ingress", plain, "VirtualService %s/%s leads to it from gateway %s, for hosts %s", v.Namespace, v.Name, strings.Join(v.Spec.GetGateways(), ", "), strings.Join(v.Spec.GetHosts(), ", "))
					return
				}
			}
		}
	}
}

// enforced tells the mode of mutual TLS and the policies that a ztunnel has for a workload.
func enforced(p *page, d *zdump.Dump, namespace, name string) error {
	rows, err := policiesOf(d, namespace, name)
	if err != nil {
		return err
	}
	mode, first := "PERMISSIVE: clients without an identity are let in too", true
	var said []string
	for _, r := range rows[1:] {
		key := r[1]
		switch {
		case strings.HasSuffix(key, "/istio_converted_static_strict"):
			mode = "STRICT: clients without an identity are refused"
		case strings.Contains(key, "/converted_peer_authentication_"):
			mode = "by port: see PeerAuthentication " + strings.Replace(key, "converted_peer_authentication_", "", 1)
		default:
			said = append(said, fmt.Sprintf("%s %s (%s, rules: %s)", r[0], key, r[2], r[3]))
		}
	}
	p.say("mutual TLS", plain, "%s", mode)
	for _, s := range said {
		if first {
			p.say("policies", plain, "%s", s)
			first = false
			continue
		}
		p.more(plain, "%s", s)
	}
	if len(said) == 0 {
		p.say("policies", plain, "none: every client that mutual TLS lets in is allowed")
	}
	return nil
}

func (l *look) describeService(ctx context.Context, name string) (*page, error) {
	name, namespace := l.split(strings.TrimPrefix(strings.TrimPrefix(name, "svc/"), "service/"))
	namespace, _, _ = strings.Cut(namespace, ".")
	o, err := l.get(ctx, kindNamed("services"), namespace, name)
	if err != nil {
		return nil, err
	}
	s := o.(*corev1.Service)
	p := &page{title: fmt.Sprintf("Service %s.%s at %s: %s", s.Name, s.Namespace, cmp.Or(s.Spec.ClusterIP, "no address"), portsOf(s))}
	pods, err := l.podsBehind(ctx, s)
	if err != nil {
		return nil, err
	}
	in := 0
	for _, pod := range pods {
		if captured(pod) || native(pod) != "" {
			in++
		}
	}
	switch {
	case len(s.Spec.Selector) == 0:
		p.say("endpoints", plain, "it selects no pods: others say what its addresses are")
	case len(pods) == 0:
		p.say("endpoints", bad, "no pod runs behind it")
	case in == len(pods):
		p.say("endpoints", fine, "%s, all in the mesh", count(len(pods), "pod", "pods"))
	case in == 0:
		p.say("endpoints", wary, "%s, none in the mesh: connections to them are plain text", count(len(pods), "pod", "pods"))
	default:
		p.say("endpoints", wary, "%d pods, %d of them in the mesh: connections to the others are plain text", len(pods), in)
	}
	for _, pod := range pods {
		state := "in the mesh"
		if !captured(pod) && native(pod) == "" {
			state = "not in the mesh"
		}
		if !ready(pod) {
			state += ", not ready"
		}
		p.more(plain, "%s at %s on %s, %s", pod.Name, pod.Status.PodIP, pod.Spec.NodeName, state)
	}
	if w := s.Labels[mesh.LabelUseWaypoint]; w != "" {
		p.say("waypoint", plain, "%s is named by the service's label", w)
	}
	l.ingress(ctx, p, s)
	for _, pod := range pods {
		if !captured(pod) {
			continue
		}
		_, d, err := l.servant(ctx, pod)
		if err != nil {
			p.fail("policies", "not known: %v", err)
			break
		}
		if err := enforced(p, d, pod.Namespace, pod.Name); err != nil {
			return nil, err
		}
		break // pods of a service are alike; where not, `x describe pod` tells
	}
	return p, l.findings(ctx, p, kindNamed("services"), s)
}

// podsBehind lists the running pods that a service selects.
func (l *look) podsBehind(ctx context.Context, s *corev1.Service) ([]*corev1.Pod, error) {
	if len(s.Spec.Selector) == 0 {
		return nil, nil
	}
	objects, err := l.mesh().List(ctx, kindNamed("pods"), s.Namespace, labels.SelectorFromSet(s.Spec.Selector).String())
	if err != nil {
		return nil, err
	}
	var pods []*corev1.Pod
	for _, o := range objects {
		if pod, ok := o.(*corev1.Pod); ok && pod.Status.Phase == corev1.PodRunning && pod.DeletionTimestamp == nil {
			pods = append(pods, pod)
		}
	}
	slices.SortFunc(pods, func(a, b *corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	return pods, nil
}

// findings adds what analyze has to say about an object.
func (l *look) findings(ctx context.Context, p *page, k kinds.Kind, o kinds.Object) error {
	in, _, err := l.gather(ctx, analyzeFlags{kube: true, all: true}, nil)
	if err != nil {
		p.say("findings", wary, "not looked for: %v", err)
		return nil
	}
	origin, first := k.Kind+" "+o.GetName()+"."+o.GetNamespace(), true
	for _, m := range analyze.Run(in) {
		if m.Origin != origin {
			continue
		}
		text := fmt.Sprintf("[%s] %s", m.Code, m.Text)
		if m.Hint != "" {
			text += " → " + m.Hint
		}
		if first {
			p.say("findings", wary, "%s", text)
			first = false
			continue
		}
		p.more(wary, "%s", text)
	}
	return nil
}
