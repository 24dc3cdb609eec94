package table

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	netv1 "istio.io/client-go/pkg/apis/networking/v1"
	secv1 "istio.io/client-go/pkg/apis/security/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// col reads a column of one Go type; an object of another type shows nothing.
func col[T kinds.Object](title string, value func(T) string) column {
	return column{title: title, value: func(o kinds.Object, _ Options) string {
		if t, ok := o.(T); ok {
			return value(t)
		}
		return ""
	}}
}

func wide(c column) column { c.wide = true; return c }

func age() column {
	return column{title: "AGE", value: func(o kinds.Object, opt Options) string {
		return Age(o.GetCreationTimestamp().Time, opt.Now)
	}}
}

// columnsOf are the columns after NAME, as kubectl prints them.
func columnsOf(kind kinds.Kind) []column {
	if kind.Group == "gateway.networking.k8s.io" {
		return gatewayColumns(kind.Kind)
	}
	switch kind.Kind {
	case "Pod":
		return []column{
			col("READY", podReady), col("STATUS", PodStatus), col("RESTARTS", podRestarts), age(),
			wide(col("IP", func(p *corev1.Pod) string { return none(p.Status.PodIP) })),
			wide(col("NODE", func(p *corev1.Pod) string { return none(p.Spec.NodeName) })),
			wide(col("NOMINATED NODE", func(p *corev1.Pod) string { return none(p.Status.NominatedNodeName) })),
			wide(col("READINESS GATES", func(*corev1.Pod) string { return "<none>" })),
		}
	case "Service":
		return []column{
			col("TYPE", func(s *corev1.Service) string { return string(s.Spec.Type) }),
			col("CLUSTER-IP", func(s *corev1.Service) string { return none(s.Spec.ClusterIP) }),
			col("EXTERNAL-IP", externalIP), col("PORT(S)", servicePorts), age(),
			wide(col("SELECTOR", func(s *corev1.Service) string { return Labels(s.Spec.Selector) })),
		}
	case "Deployment":
		return []column{
			col("READY", func(d *appsv1.Deployment) string {
				return fmt.Sprintf("%d/%d", d.Status.ReadyReplicas, replicas(d.Spec.Replicas))
			}),
			col("UP-TO-DATE", func(d *appsv1.Deployment) string { return fmt.Sprint(d.Status.UpdatedReplicas) }),
			col("AVAILABLE", func(d *appsv1.Deployment) string { return fmt.Sprint(d.Status.AvailableReplicas) }), age(),
			wide(col("CONTAINERS", func(d *appsv1.Deployment) string { return containers(d.Spec.Template.Spec, false) })),
			wide(col("IMAGES", func(d *appsv1.Deployment) string { return containers(d.Spec.Template.Spec, true) })),
			wide(col("SELECTOR", func(d *appsv1.Deployment) string { return metav1.FormatLabelSelector(d.Spec.Selector) })),
		}
	case "ReplicaSet":
		return []column{
			col("DESIRED", func(r *appsv1.ReplicaSet) string { return fmt.Sprint(replicas(r.Spec.Replicas)) }),
			col("CURRENT", func(r *appsv1.ReplicaSet) string { return fmt.Sprint(r.Status.Replicas) }),
			col("READY", func(r *appsv1.ReplicaSet) string { return fmt.Sprint(r.Status.ReadyReplicas) }), age(),
		}
	case "DaemonSet":
		n := func(title string, f func(appsv1.DaemonSetStatus) int32) column {
			return col(title, func(d *appsv1.DaemonSet) string { return fmt.Sprint(f(d.Status)) })
		}
		return []column{
			n("DESIRED", func(s appsv1.DaemonSetStatus) int32 { return s.DesiredNumberScheduled }),
			n("CURRENT", func(s appsv1.DaemonSetStatus) int32 { return s.CurrentNumberScheduled }),
			n("READY", func(s appsv1.DaemonSetStatus) int32 { return s.NumberReady }),
			n("UP-TO-DATE", func(s appsv1.DaemonSetStatus) int32 { return s.UpdatedNumberScheduled }),
			n("AVAILABLE", func(s appsv1.DaemonSetStatus) int32 { return s.NumberAvailable }),
			col("NODE SELECTOR", func(d *appsv1.DaemonSet) string { return Labels(d.Spec.Template.Spec.NodeSelector) }), age(),
		}
	case "StatefulSet":
		return []column{col("READY", func(s *appsv1.StatefulSet) string {
			return fmt.Sprintf("%d/%d", s.Status.ReadyReplicas, replicas(s.Spec.Replicas))
		}), age()}
	case "Job":
		return []column{col("COMPLETIONS", func(j *batchv1.Job) string {
			return fmt.Sprintf("%d/%d", j.Status.Succeeded, replicas(j.Spec.Completions))
		}), age()}
	case "Namespace":
		return []column{col("STATUS", func(n *corev1.Namespace) string { return cmp.Or(string(n.Status.Phase), "Active") }), age()}
	case "Node":
		return nodeColumns()
	case "ServiceAccount":
		return []column{col("SECRETS", func(s *corev1.ServiceAccount) string { return fmt.Sprint(len(s.Secrets)) }), age()}
	case "ConfigMap":
		return []column{col("DATA", func(c *corev1.ConfigMap) string { return fmt.Sprint(len(c.Data) + len(c.BinaryData)) }), age()}
	case "Secret":
		return []column{
			col("TYPE", func(s *corev1.Secret) string { return string(s.Type) }),
			col("DATA", func(s *corev1.Secret) string { return fmt.Sprint(len(s.Data)) }), age(),
		}
	case "EndpointSlice":
		return []column{
			col("ADDRESSTYPE", func(e *discoveryv1.EndpointSlice) string { return string(e.AddressType) }),
			col("PORTS", slicePorts), col("ENDPOINTS", sliceAddresses), age(),
		}
	case "Event":
		return []column{
			{title: "LAST SEEN", value: func(o kinds.Object, opt Options) string {
				e, ok := o.(*corev1.Event)
				if !ok {
					return ""
				}
				return Age(e.LastTimestamp.Time, opt.Now)
			}},
			col("TYPE", func(e *corev1.Event) string { return e.Type }), col("REASON", func(e *corev1.Event) string { return e.Reason }),
			col("OBJECT", func(e *corev1.Event) string {
				return strings.ToLower(e.InvolvedObject.Kind) + "/" + e.InvolvedObject.Name
			}),
			col("MESSAGE", func(e *corev1.Event) string { return e.Message }),
		}
	case "VirtualService":
		return []column{
			col("GATEWAYS", func(v *netv1.VirtualService) string { return list(v.Spec.Gateways) }),
			col("HOSTS", func(v *netv1.VirtualService) string { return list(v.Spec.Hosts) }), age(),
		}
	case "AuthorizationPolicy":
		return []column{col("ACTION", func(a *secv1.AuthorizationPolicy) string { return a.Spec.Action.String() }), age()}
	case "PeerAuthentication":
		return []column{col("MODE", func(p *secv1.PeerAuthentication) string { return p.Spec.GetMtls().GetMode().String() }), age()}
	case "DestinationRule":
		return []column{col("HOST", func(d *netv1.DestinationRule) string { return d.Spec.Host }), age()}
	case "ServiceEntry":
		return []column{
			col("HOSTS", func(s *netv1.ServiceEntry) string { return list(s.Spec.Hosts) }),
			col("LOCATION", func(s *netv1.ServiceEntry) string { return s.Spec.Location.String() }),
			col("RESOLUTION", func(s *netv1.ServiceEntry) string { return s.Spec.Resolution.String() }), age(),
		}
	}
	return []column{age()}
}

func nodeColumns() []column {
	address := func(n *corev1.Node) string {
		for _, a := range n.Status.Addresses {
			if a.Type == corev1.NodeInternalIP {
				return a.Address
			}
		}
		return "<none>"
	}
	return []column{
		col("STATUS", func(n *corev1.Node) string {
			status := "NotReady"
			for _, c := range n.Status.Conditions {
				if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
					status = "Ready"
				}
			}
			if n.Spec.Unschedulable {
				status += ",SchedulingDisabled"
			}
			return status
		}),
		col("ROLES", func(n *corev1.Node) string {
			var roles []string
			for l := range n.Labels {
				if role, ok := strings.CutPrefix(l, "node-role.kubernetes.io/"); ok {
					roles = append(roles, role)
				}
			}
			slices.Sort(roles)
			return list(roles)
		}),
		age(),
		col("VERSION", func(n *corev1.Node) string { return none(n.Status.NodeInfo.KubeletVersion) }),
		wide(col("INTERNAL-IP", address)),
		wide(col("OS-IMAGE", func(n *corev1.Node) string { return none(n.Status.NodeInfo.OSImage) })),
		wide(col("KERNEL-VERSION", func(n *corev1.Node) string { return none(n.Status.NodeInfo.KernelVersion) })),
	}
}

func none(s string) string { return cmp.Or(s, "<none>") }

func list(s []string) string {
	if len(s) == 0 {
		return "<none>"
	}
	return strings.Join(s, ",")
}

func replicas(n *int32) int32 {
	if n == nil {
		return 1
	}
	return *n
}
