package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/ambit-mesh/ambit/cli/internal/zdump"
	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/local"
)

// reach is how commands that look into a mesh get at it: its objects, and the debug servers of its pods.
type reach interface {
	Get(ctx context.Context, k kinds.Kind, namespace, name string) (kinds.Object, error)
	List(ctx context.Context, k kinds.Kind, namespace, selector string) ([]kinds.Object, error)
	// Pod makes a request to a port of a pod's loopback.
	Pod(ctx context.Context, method, namespace, pod string, port int, path string) ([]byte, error)
}

const (
	systemNamespace = "istio-system"
	ztunnelPods     = "app=ztunnel"
	istiodPods      = "app=istiod"
	debugPort       = 15014
)

// look is what the commands that look into a mesh share.
type look struct {
	env              Env
	state, namespace string
	adminPort        int
	mesh             func() reach
}

func newLook(env Env) *look {
	l := &look{env: env}
	l.mesh = func() reach { return (&scope{state: l.state}).client() }
	return l
}

// flags adds those by which the mesh is found.
func (l *look) flags(c *cobra.Command) {
	c.PersistentFlags().StringVar(&l.state, "state", local.DefaultState(), "directory that holds the local cluster")
	c.PersistentFlags().IntVar(&l.adminPort, "proxy-admin-port", 15000, "port of a ztunnel's admin server")
}

// podsOf lists the running pods of the system namespace with a label; without any, missing says what to do.
func (l *look) podsOf(ctx context.Context, selector, missing string) ([]*corev1.Pod, error) {
	kind, _ := kinds.Find("pods")
	objects, err := l.mesh().List(ctx, kind, systemNamespace, selector)
	if err != nil {
		return nil, err
	}
	var pods []*corev1.Pod
	for _, o := range objects {
		if p, ok := o.(*corev1.Pod); ok && p.Status.Phase == corev1.PodRunning {
			pods = append(pods, p)
		}
	}
	if len(pods) == 0 {
		return nil, errors.New(missing)
	}
	slices.SortFunc(pods, func(a, b *corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	return pods, nil
}

// ztunnels lists them, those of a node or with a name ("name" or "name.namespace") if one is given.
func (l *look) ztunnels(ctx context.Context, node, name string) ([]*corev1.Pod, error) {
	pods, err := l.podsOf(ctx, ztunnelPods, "no ztunnel runs in namespace "+systemNamespace+": see `ambit local get pods -A`")
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
	if len(found) == 0 {
		return nil, fmt.Errorf("no such ztunnel; there are: %s", strings.Join(have, ", "))
	}
	return found, nil
}

// dump reads a ztunnel's whole state.
func (l *look) dump(ctx context.Context, z *corev1.Pod) (*zdump.Dump, error) {
	b, err := l.mesh().Pod(ctx, http.MethodGet, z.Namespace, z.Name, l.adminPort, "/config_dump")
	if err != nil {
		return nil, fmt.Errorf("read the state of %s: %w", z.Name, err)
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
