package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/api/explain"
	"github.com/ambit-mesh/ambit/mesh"
)

func newExplain(env Env) *cobra.Command {
	l := newLook(env)
	var last int
	var output string
	c := &cobra.Command{
		Use: "explain FROM TO[:PORT]", Short: "Tell what would become of a connection, and why", Args: cobra.MaximumNArgs(2),
		Long: "Tell, step by step, what would become of a connection: is its source captured, what does its destination stand for, how\n" +
			"would it travel, which policy would decide, and why. The ztunnels of both ends answer, from what decides live traffic.\n\n" +
			"FROM is a pod, KIND/NAME (a pod of it), an address, gateway (the ingress gateway) or outside.\n" +
			"TO is a service, a pod, KIND/NAME, an address or a host name of the mesh; its port may be a number or a service's name\n" +
			"for it. NAME.NAMESPACE names one of another namespace than -n.\n\n" +
			"With --last, tell which connections failed lately, and why.",
		Example: "  ambit explain deploy/sleep productpage:9080\n  ambit explain deploy/sleep 10.244.2.5:9080\n" +
			"  ambit explain outside details.default:9080\n  ambit explain gateway productpage:9080\n  ambit explain --last",
		ValidArgsFunction: l.completeEnds,
		RunE: func(c *cobra.Command, args []string) error {
			if c.Flags().Changed("last") {
				if len(args) == 1 { // as it is read who writes --last 5
					n, err := strconv.Atoi(args[0])
					if err != nil || n < 1 {
						return usage("--last %q: want a number", args[0])
					}
					last = n
				} else if len(args) > 1 {
					return usage("--last takes at most a number")
				}
				return l.explainLast(c.Context(), last, output)
			}
			if len(args) != 2 {
				return usage("name both ends, such as: ambit explain deploy/sleep productpage:9080")
			}
			e, err := l.explain(c.Context(), args[0], args[1])
			if err != nil {
				return err
			}
			if output != "" {
				return encode(env.Out, output, e)
			}
			return e.write(env.Out)
		},
	}
	l.flags(c)
	c.Flags().StringVarP(&l.namespace, "namespace", "n", "default", "namespace of the names")
	c.Flags().StringVarP(&output, "output", "o", "", "json or yaml")
	c.Flags().IntVar(&last, "last", 0, "tell of the last connections that failed, this many")
	c.Flags().Lookup("last").NoOptDefVal = "10"
	l.completeNamespace(c)
	completeFlag(c, "output", words("json", "yaml"))
	return c
}

// explanation joins what the ztunnels of both ends say.
type explanation struct {
	From     string            `json:"from"`
	To       string            `json:"to"`
	Node     string            `json:"node,omitempty"` // the source's
	Outbound explain.Outbound  `json:"outbound"`
	Reason   string            `json:"reason,omitempty"` // why the source is not captured
	Native   string            `json:"native,omitempty"` // what the source is, if it speaks HBONE itself
	Note     string            `json:"note,omitempty"`   // what was assumed
	Ends     []explainedTarget `json:"endpoints,omitempty"`
	Outcome  string            `json:"outcome"` // ALLOWED, DENIED, FAILS or UNDECIDED
	Result   string            `json:"result"`
	Remedy   string            `json:"remedy,omitempty"`
}

// explainedTarget is one endpoint. Inbound is nil if no ztunnel could be asked, for the reason in Unasked.
type explainedTarget struct {
	explain.Endpoint
	Inbound *explain.Inbound `json:"inbound,omitempty"`
	Unasked string           `json:"unasked,omitempty"`
}

// mostEnds bounds how many endpoints are asked about.
const mostEnds = 8

// proved tells whether the source can prove its identity.
func (e *explanation) proved() bool { return e.Outbound.Captured || e.Native != "" }

func (l *look) explain(ctx context.Context, from, to string) (*explanation, error) {
	pod, address, err := l.source(ctx, from)
	if err != nil {
		return nil, fmt.Errorf("FROM: %w", err)
	}
	dialled, note, err := l.target(ctx, to)
	if err != nil {
		return nil, fmt.Errorf("TO: %w", err)
	}
	e := &explanation{To: to, Note: note}
	if pod != nil {
		err = l.fromPod(ctx, e, pod, dialled)
	} else {
		err = l.fromOutside(ctx, e, address, dialled)
	}
	if err != nil {
		return nil, err
	}
	for i, at := range e.Outbound.Endpoints {
		if i == mostEnds {
			break
		}
		e.Ends = append(e.Ends, l.inbound(ctx, e, at))
	}
	_, e.Outcome, e.Result = e.result()
	e.Remedy = e.remedy()
	return e, nil
}

// fromPod asks the ztunnel of a pod's node what it would do.
func (l *look) fromPod(ctx context.Context, e *explanation, pod *corev1.Pod, dialled string) error {
	e.From, e.Node = pod.Namespace+"/"+pod.Name, pod.Spec.NodeName
	if e.Node == "" {
		return fmt.Errorf("pod %s is on no node yet: see %s", e.From, l.see("describe pod -n", pod.Namespace, pod.Name))
	}
	q := url.Values{"from": {e.From}, "to": {dialled}}
	if pod.Status.Phase != corev1.PodRunning {
		return fmt.Errorf("pod %s does not run: %s", e.From, cmp.Or(l.trouble(ctx, pod), "it is "+string(pod.Status.Phase)))
	}
	if err := l.ask(ctx, e.Node, q, &e.Outbound); err != nil {
		return err
	}
	if !e.Outbound.Captured {
		if e.Native = native(pod); e.Native == "" {
			e.Reason = l.uncaptured(ctx, pod)
		}
	}
	return nil
}

// native says what a pod is that ends and opens tunnels itself; "" is none.
func native(p *corev1.Pod) string {
	switch {
	case p.Labels["istio"] == "ingressgateway":
		return "the ingress gateway"
	case p.Labels[mesh.LabelGatewayName] != "":
		return "the gateway " + p.Labels[mesh.LabelGatewayName]
	case p.Labels[mesh.LabelTunnel] == "http":
		return "the pod"
	}
	return ""
}

// inbound asks an endpoint's ztunnel.
func (l *look) inbound(ctx context.Context, e *explanation, at explain.Endpoint) explainedTarget {
	t := explainedTarget{Endpoint: at}
	q := url.Values{"at": {at.Namespace + "/" + at.Name}, "from": {e.Outbound.Address}, "to": {at.Address}}
	switch {
	case e.Outbound.Type == "ToServerWaypoint":
		t.Unasked = "the waypoint decides, not this endpoint's policies for its clients"
		return t
	case !strings.Contains(at.UID, "//Pod/") && at.HBONE:
		t.Unasked = "it is no pod of the cluster, but ends its tunnels itself"
		return t
	case !strings.Contains(at.UID, "//Pod/"):
		t.Inbound = &explain.Inbound{Workload: at.UID}
		return t
	}
	if e.proved() && at.HBONE {
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
	b, err := l.page(ctx, z[0], l.adminPort, "/explain?"+q.Encode())
	if err != nil {
		return err
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
	ns, err := l.mesh().Get(ctx, kindNamed("namespaces"), "", p.Namespace)
	switch {
	case err != nil:
		return err.Error()
	case p.Labels[mesh.LabelDataplaneMode] != mesh.DataplaneModeAmbient && ns.GetLabels()[mesh.LabelDataplaneMode] != mesh.DataplaneModeAmbient:
		return "neither the pod nor its namespace has the label " + mesh.LabelDataplaneMode + "=ambient"
	case p.Status.Phase != corev1.PodRunning:
		return "it does not run: " + cmp.Or(l.trouble(ctx, p), "it is "+string(p.Status.Phase))
	case p.Annotations[mesh.AnnotationRedirection] == mesh.RedirectionPending:
		return "its enrolment is not finished: see " + l.agentLog(ctx, p.Spec.NodeName)
	}
	return "the node agent has not enrolled it: see " + l.agentLog(ctx, p.Spec.NodeName)
}

// agentLog says where the node agent of a node tells what it did.
func (l *look) agentLog(ctx context.Context, node string) string {
	objects, err := l.mesh().List(ctx, kindNamed("pods"), systemNamespace, agentPods)
	if err == nil {
		for _, o := range objects {
			if p, ok := o.(*corev1.Pod); ok && p.Spec.NodeName == node {
				return l.see("logs -n", p.Namespace, p.Name)
			}
		}
		return "why no istio-cni-node runs on " + node
	}
	return "the logs of istio-cni-node on " + node
}
