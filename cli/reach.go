package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/pflag"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/ambit-mesh/ambit/cli/internal/zdump"
	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/local/client"
	"github.com/ambit-mesh/ambit/local/table"
)

// reach is how commands that look into a mesh get at it: its objects, and the debug servers of its pods.
type reach interface {
	Get(ctx context.Context, k kinds.Kind, namespace, name string) (kinds.Object, error)
	List(ctx context.Context, k kinds.Kind, namespace, selector string) ([]kinds.Object, error)
	// Pod makes a request to a port of a pod's loopback.
	Pod(ctx context.Context, method, namespace, pod string, port int, path string) ([]byte, error)
	Logs(ctx context.Context, namespace, pod string, o client.LogOptions) (io.ReadCloser, error)
}

const (
	systemNamespace = "istio-system"
	ztunnelPods     = "app=ztunnel"
	istiodPods      = "app=istiod"
	agentPods       = "k8s-app=istio-cni-node"
	debugPort       = 15014
)

// look is what the commands that look into a mesh share.
type look struct {
	env       Env
	namespace string
	adminPort int

	wish          wish
	stated        *pflag.Flag // --state
	settled, told sync.Once
	at            site // once it is settled
}

func newLook(env Env) *look { return &look{env: env} }

// podsOf lists the pods of the system namespace with a label that run, those first that are ready; what calls them. Without
// any it says what there is instead.
func (l *look) podsOf(ctx context.Context, selector, what string) ([]*corev1.Pod, error) {
	objects, err := l.mesh().List(ctx, kindNamed("pods"), systemNamespace, selector)
	if err != nil {
		return nil, err
	}
	var pods []*corev1.Pod
	var others []string
	for _, o := range objects {
		p, ok := o.(*corev1.Pod)
		switch {
		case !ok:
		case p.Status.Phase == corev1.PodRunning:
			pods = append(pods, p)
		default:
			others = append(others, p.Name+": "+table.PodStatus(p))
		}
	}
	switch {
	case len(pods) > 0:
	case len(others) > 0:
		return nil, noneRuns("no %s runs in namespace %s (%s): see %s", what, systemNamespace, strings.Join(others, ", "), l.see("describe pods -n", systemNamespace, "-l", selector))
	case l.at.state != "":
		return nil, noneRuns("no %s runs in namespace %s: see %s", what, systemNamespace, l.see("get pods -A"))
	default:
		return nil, l.none(ctx, selector, what)
	}
	slices.SortFunc(pods, func(a, b *corev1.Pod) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a.Name, b.Name))
	})
	return pods, nil
}

// absence says that a part of the mesh does not run at all, rather than that it could not be asked.
type absence struct{ error }

func noneRuns(format string, args ...any) error { return absence{fmt.Errorf(format, args...)} }

// none says why a part of the mesh has no pods: its workload wants none or gets none, or there is no mesh.
func (l *look) none(ctx context.Context, selector, what string) error {
	for _, kind := range []string{"deployments", "daemonsets"} {
		objects, err := l.mesh().List(ctx, kindNamed(kind), systemNamespace, "")
		if err != nil {
			continue // told without
		}
		for _, o := range objects {
			wanted, label := -1, ""
			switch w := o.(type) {
			case *appsv1.Deployment:
				wanted, label = int(*cmp.Or(w.Spec.Replicas, new(int32(1)))), w.Spec.Template.Labels["app"]
			case *appsv1.DaemonSet:
				wanted, label = int(w.Status.DesiredNumberScheduled), w.Spec.Template.Labels["app"]
			}
			if "app="+label == selector {
				return noneRuns("no %s runs in namespace %s, of which %s/%s wants %s: see %s", what, systemNamespace, strings.TrimSuffix(kind, "s"), o.GetName(),
					count(wanted, "pod", "pods"), l.see("describe -n", systemNamespace, strings.TrimSuffix(kind, "s"), o.GetName()))
			}
		}
	}
	return noneRuns("no %s is installed in namespace %s of this cluster: `ambit install` brings the mesh, --context or --kubeconfig names another cluster", what, systemNamespace)
}

// rank orders pods by how likely they are to answer.
func rank(p *corev1.Pod) int {
	switch {
	case p.DeletionTimestamp != nil:
		return 2
	case !ready(p):
		return 1
	}
	return 0
}

func ready(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// ztunnels lists them, those of a node or with a name ("name" or "name.namespace") if one is given.
func (l *look) ztunnels(ctx context.Context, node, name string) ([]*corev1.Pod, error) {
	pods, err := l.podsOf(ctx, ztunnelPods, "ztunnel")
	if err != nil {
		return nil, err
	}
	name = strings.TrimSuffix(name, "."+systemNamespace)
	var found []*corev1.Pod
	var have []string
	for _, p := range pods {
		have = append(have, fmt.Sprintf("%s on %s", p.Name, p.Spec.NodeName))
		if (node == "" || p.Spec.NodeName == node) && (name == "" || p.Name == name) {
			found = append(found, p)
		}
	}
	switch {
	case len(found) > 0:
	case node != "":
		return nil, fmt.Errorf("no ztunnel runs on a node %s; there are: %s", node, strings.Join(have, ", "))
	default:
		return nil, fmt.Errorf("no such ztunnel; there are: %s", strings.Join(have, ", "))
	}
	return found, nil
}

// dump reads a ztunnel's whole state.
func (l *look) dump(ctx context.Context, z *corev1.Pod) (*zdump.Dump, error) {
	b, err := l.page(ctx, z, l.adminPort, "/config_dump")
	if err != nil {
		return nil, fmt.Errorf("read the state of a ztunnel: %w", err)
	}
	return zdump.Parse(b)
}

// encode writes a value as -o wants it.
func encode(w io.Writer, format string, v any) error {
	b, err := json.MarshalIndent(v, "", "    ")
	if err != nil {
		return err
	}
	switch format {
	case "json":
		b = append(b, '\n')
	case "yaml":
		if b, err = yaml.JSONToYAML(b); err != nil {
			return err
		}
	default:
		return fmt.Errorf("unknown output %q: want json or yaml", format)
	}
	_, err = w.Write(b)
	return err
}
