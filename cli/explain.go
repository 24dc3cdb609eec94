package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/api/explain"
	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/mesh"
)

func newExplain(env Env) *cobra.Command {
	l := newLook(env)
	var last int
	var output string
	c := &cobra.Command{
		Use: "explain FROM TO[:PORT]", Short: "Tell what would become of a connection, and why", Args: cobra.MaximumNArgs(2),
		Long: "Tell, step by step, what would become of a connection: is its source captured, what does its destination stand for, how\n" +
			"would it travel, which policy would decide, and why. The ztunnels of both ends answer, from what decides live traffic.\n" +
			"FROM is a pod or KIND/NAME; TO a service, a pod, KIND/NAME or an address. NAME.NAMESPACE names one of another namespace.\n\n" +
			"With --last, tell which connections failed lately.",
		Example: "  ambit explain deploy/sleep productpage:9080\n  ambit explain deploy/sleep 10.244.2.5:9080 -n default\n  ambit explain --last",
		RunE: func(c *cobra.Command, args []string) error {
			if c.Flags().Changed("last") {
				if len(args) == 1 { // as it is read who writes --last 5
					n, err := strconv.Atoi(args[0])
					if err != nil || n < 1 {
						return fmt.Errorf("--last %q: want a number", args[0])
					}
					last = n
				} else if len(args) > 1 {
					return errors.New("--last takes at most a number")
				}
				return l.explainLast(c.Context(), last, output)
			}
			if len(args) != 2 {
				return errors.New("name both ends, such as: ambit explain deploy/sleep productpage:9080")
			}
			e, err := l.explain(c.Context(), args[0], args[1])
			if err != nil {
				return err
			}
			if output != "" {
				return encode(env.Out, output, e)
			}
			_, err = env.Out.Write([]byte(e.text()))
			return err
		},
	}
	l.flags(c)
	c.Flags().StringVarP(&l.namespace, "namespace", "n", "default", "namespace of the names")
	c.Flags().StringVarP(&output, "output", "o", "", "json or yaml")
	c.Flags().IntVar(&last, "last", 0, "tell of the last connections that failed, this many")
	c.Flags().Lookup("last").NoOptDefVal = "10"
	return c
}

// explanation joins what the ztunnels of both ends say.
type explanation struct {
	From     string            `json:"from"`
	To       string            `json:"to"`
	Node     string            `json:"node"` // the source's
	Outbound explain.Outbound  `json:"outbound"`
	Reason   string            `json:"reason,omitempty"` // why the source is not captured
	Ends     []explainedTarget `json:"endpoints,omitempty"`
}

// explainedTarget is one endpoint. Inbound is nil if no ztunnel could be asked, for the reason in Unasked.
type explainedTarget struct {
	explain.Endpoint
	Inbound *explain.Inbound `json:"inbound,omitempty"`
	Unasked string           `json:"unasked,omitempty"`
}

// mostEnds bounds how many endpoints are asked about.
const mostEnds = 8

func (l *look) explain(ctx context.Context, from, to string) (*explanation, error) {
	pod, err := l.onePod(ctx, from)
	if err != nil {
		return nil, fmt.Errorf("FROM: %w", err)
	}
	dialled, err := l.target(ctx, to)
	if err != nil {
		return nil, fmt.Errorf("TO: %w", err)
	}
	e := &explanation{From: pod.Namespace + "/" + pod.Name, To: to, Node: pod.Spec.NodeName}
	q := url.Values{"from": {e.From}, "to": {dialled}}
	if err := l.ask(ctx, pod.Spec.NodeName, q, &e.Outbound); err != nil {
		return nil, err
	}
	if !e.Outbound.Captured {
		e.Reason = l.uncaptured(ctx, pod)
	}
	for i, at := range e.Outbound.Endpoints {
		if i == mostEnds {
			break
		}
		e.Ends = append(e.Ends, l.inbound(ctx, e, at))
	}
	return e, nil
}

// inbound asks an endpoint's ztunnel.
func (l *look) inbound(ctx context.Context, e *explanation, at explain.Endpoint) explainedTarget {
	t := explainedTarget{Endpoint: at}
	q := url.Values{"at": {at.Namespace + "/" + at.Name}, "from": {e.Outbound.Address}, "to": {at.Address}}
	switch {
	case e.Outbound.Type == "ToServerWaypoint":
		t.Unasked = "the waypoint decides, not this endpoint's policies for its clients"
		return t
	case !strings.Contains(at.UID, "//Pod/"):
		t.Unasked = "it is no pod"
		return t
	}
	if e.Outbound.Captured && at.HBONE {
		q.Set("peer", e.Outbound.Identity)
	}
	var in explain.Inbound
	if err := l.ask(ctx, at.Node, q, &in); err != nil {
		t.Unasked = err.Error()
		return t
	}
	t.Inbound = &in
	return t
}

// ask gets an explanation of a node's ztunnel.
func (l *look) ask(ctx context.Context, node string, q url.Values, into any) error {
	z, err := l.ztunnels(ctx, node, "")
	if err != nil {
		return fmt.Errorf("ztunnel of node %s: %w", node, err)
	}
	b, err := l.mesh().Pod(ctx, http.MethodGet, z[0].Namespace, z[0].Name, l.adminPort, "/explain?"+q.Encode())
	if err != nil {
		return fmt.Errorf("%s: %w", z[0].Name, err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("answer of %s: %w", z[0].Name, err)
	}
	return nil
}

// uncaptured says why a pod is not in the mesh.
func (l *look) uncaptured(ctx context.Context, p *corev1.Pod) string {
	if p.Spec.HostNetwork {
		return "the pod is in its node's network, which is never captured"
	}
	if p.Labels[mesh.LabelDataplaneMode] == mesh.DataplaneModeNone {
		return "the pod has the label " + mesh.LabelDataplaneMode + "=none"
	}
	kind, _ := kinds.Find("namespaces")
	ns, err := l.mesh().Get(ctx, kind, "", p.Namespace)
	switch {
	case err != nil:
		return err.Error()
	case p.Labels[mesh.LabelDataplaneMode] != mesh.DataplaneModeAmbient && ns.GetLabels()[mesh.LabelDataplaneMode] != mesh.DataplaneModeAmbient:
		return "neither the pod nor its namespace has the label " + mesh.LabelDataplaneMode + "=ambient"
	}
	return "the node agent has not enrolled it: see the logs of istio-cni-node on " + p.Spec.NodeName
}

// split reads NAME or NAME.NAMESPACE.
func (l *look) split(name string) (n, namespace string) {
	n, namespace, _ = strings.Cut(name, ".")
	return n, cmp.Or(namespace, l.namespace)
}

// onePod finds the pod that POD or KIND/NAME means, a running one first.
func (l *look) onePod(ctx context.Context, text string) (*corev1.Pod, error) {
	kind, _ := kinds.Find("pods")
	selector, namespace := "", l.namespace
	if word, name, ok := strings.Cut(text, "/"); ok {
		k, ok := kinds.Find(word)
		if !ok {
			return nil, fmt.Errorf("%q is no kind of object", word)
		}
		name, namespace = l.split(name)
		o, err := l.mesh().Get(ctx, k, namespace, name)
		if err != nil {
			return nil, err
		}
		if p, ok := o.(*corev1.Pod); ok {
			return p, nil
		}
		if selector, err = selectorOf(o); err != nil {
			return nil, err
		}
	} else {
		name, namespace := l.split(text)
		o, err := l.mesh().Get(ctx, kind, namespace, name)
		if err != nil {
			return nil, fmt.Errorf("%w; write deploy/%s for a pod of a Deployment", err, name)
		}
		if p, ok := o.(*corev1.Pod); ok {
			return p, nil
		}
	}
	objects, err := l.mesh().List(ctx, kind, namespace, selector)
	if err != nil {
		return nil, err
	}
	for _, o := range objects {
		if p, ok := o.(*corev1.Pod); ok && p.Status.Phase == corev1.PodRunning {
			return p, nil
		}
	}
	return nil, fmt.Errorf("no pod of %s runs", text)
}

// target is the address and port, or the host name of the mesh and port, that TO means.
func (l *look) target(ctx context.Context, to string) (string, error) {
	host, port, err := net.SplitHostPort(to)
	if err != nil {
		host, port = strings.Trim(to, "[]"), ""
	}
	if _, err := netip.ParseAddr(host); err == nil {
		if port == "" {
			return "", fmt.Errorf("%s: add a port", to)
		}
		return net.JoinHostPort(host, port), nil
	}
	if !strings.Contains(host, "/") {
		name, namespace := l.split(host)
		namespace, rest, _ := strings.Cut(namespace, ".")
		kind, _ := kinds.Find("services")
		if o, err := l.mesh().Get(ctx, kind, namespace, name); err == nil && (rest == "" || rest == "svc" || rest == "svc."+mesh.ClusterDomain) {
			return serviceTarget(o.(*corev1.Service), port)
		}
		if strings.Contains(host, ".") && port != "" {
			return net.JoinHostPort(host, port), nil // such as a ServiceEntry's, which ztunnel knows
		}
	}
	p, err := l.onePod(ctx, host)
	if err != nil {
		return "", err
	}
	if port == "" {
		if cs := p.Spec.Containers; len(cs) > 0 && len(cs[0].Ports) > 0 {
			port = strconv.Itoa(int(cs[0].Ports[0].ContainerPort))
		} else {
			return "", fmt.Errorf("%s: add a port", to)
		}
	}
	return net.JoinHostPort(p.Status.PodIP, port), nil
}

// serviceTarget is a service's address and a port of it by number or name, the first if none is given.
func serviceTarget(s *corev1.Service, port string) (string, error) {
	if s.Spec.ClusterIP == "" || s.Spec.ClusterIP == corev1.ClusterIPNone {
		return "", fmt.Errorf("service %s has no address of its own: ask about one of its pods", s.Name)
	}
	for _, p := range s.Spec.Ports {
		if number := strconv.Itoa(int(p.Port)); port == "" || port == number || port == p.Name {
			return net.JoinHostPort(s.Spec.ClusterIP, number), nil
		}
	}
	if _, err := strconv.ParseUint(port, 10, 16); err == nil {
		return net.JoinHostPort(s.Spec.ClusterIP, port), nil // it leads nowhere, and that is the explanation
	}
	return "", fmt.Errorf("service %s has no port %q", s.Name, port)
}
