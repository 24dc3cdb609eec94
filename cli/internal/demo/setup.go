package demo

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/local/client"
	"github.com/ambit-mesh/ambit/local/table"
	"github.com/ambit-mesh/ambit/manifests"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/samples"
)

// readyTimeout bounds the wait for any workload.
const readyTimeout = 90 * time.Second

func kindOf(word string) kinds.Kind {
	k, ok := kinds.Find(word)
	if !ok {
		panic("demo: no kind " + word)
	}
	return k
}

// install is step a: the components in order, a line each as it becomes ready.
func (w *Walk) install(ctx context.Context) error {
	if err := Install(ctx, w.API, manifests.Options{LogFormat: "walkthrough"}, w.ui.wait, w.ui.done); err != nil {
		return err
	}
	w.ui.command("ambit local get pods -n istio-system")
	return w.showPods(ctx, mesh.SystemNamespace)
}

// Install applies the components of the mesh in order and waits for each. waiting and done show progress.
func Install(ctx context.Context, api *client.Client, o manifests.Options, waiting func(string), done func(string, ...any)) error {
	steps, err := manifests.Local(o)
	if err != nil {
		return err
	}
	defer waiting("")
	for _, c := range steps {
		waiting("Installing " + c.Name)
		if _, err := api.Apply(ctx, c.File, mesh.SystemNamespace, false, c.YAML); err != nil {
			return err
		}
		if c.Workload != "" {
			if err := Ready(ctx, api, mesh.SystemNamespace, c.Kind, c.Workload); err != nil {
				return err
			}
		}
		waiting("")
		done("%s installed %s", c.Name, c.Icon)
	}
	done("Installation complete")
	return nil
}

// Ready waits for a workload; what keeps it is part of the error.
func Ready(ctx context.Context, api *client.Client, namespace, kind, name string) error {
	waiting, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	err := api.Until(waiting, kindOf(kind), namespace, name, client.RolledOut)
	if err == nil || ctx.Err() != nil {
		return err // ready, or nobody waits any more
	}
	late, stop := context.WithTimeout(ctx, 5*time.Second)
	defer stop()
	return fmt.Errorf("%w%s", err, troubles(late, api, namespace, name))
}

// troubles tells what is known of the pods of a workload that does not become ready.
func troubles(ctx context.Context, api *client.Client, namespace, name string) string {
	pods, err := api.List(ctx, kindOf("pods"), namespace, "")
	if err != nil {
		return ""
	}
	var b strings.Builder
	for _, o := range pods {
		p, ok := o.(*corev1.Pod)
		if !ok || !strings.HasPrefix(p.Name, name+"-") {
			continue
		}
		ready, _ := client.RolledOut(p)
		if ready {
			continue
		}
		fmt.Fprintf(&b, "\n  pod %s is %s %s", p.Name, table.PodStatus(p), p.Status.Message)
		for _, c := range p.Status.ContainerStatuses {
			if c.State.Waiting != nil {
				fmt.Fprintf(&b, "\n    %s: %s", c.State.Waiting.Reason, c.State.Waiting.Message)
			}
		}
		if r, err := api.Logs(ctx, namespace, p.Name, client.LogOptions{Tail: 8}); err == nil {
			fmt.Fprintf(&b, "\n    its last lines:\n%s", indent(r, "      "))
			r.Close()
		}
	}
	return b.String()
}

func (w *Walk) showPods(ctx context.Context, namespace string) error {
	pods, err := w.API.List(ctx, kindOf("pods"), namespace, "")
	if err != nil {
		return err
	}
	var b strings.Builder
	if err := table.Write(&b, kindOf("pods"), pods, table.Options{Now: time.Now()}); err != nil {
		return err
	}
	w.ui.proof(b.String())
	return nil
}

// apply applies a file of samples/ to a namespace and says so.
func (w *Walk) apply(ctx context.Context, namespace, file string) error {
	text, err := samples.FS.ReadFile(file)
	if err != nil {
		return fmt.Errorf("sample: %w", err)
	}
	command := "ambit local apply -f samples/" + file
	if namespace != "default" {
		command += " -n " + namespace
	}
	w.ui.command(command)
	_, err = w.API.Apply(ctx, "samples/"+file, namespace, false, text)
	return err
}

// deploy is step b.
func (w *Walk) deploy(ctx context.Context) error {
	for _, f := range []string{"bookinfo/platform/kube/bookinfo.yaml", "sleep/sleep.yaml", "sleep/notsleep.yaml", "bookinfo/networking/bookinfo-gateway.yaml"} {
		if err := w.apply(ctx, "default", f); err != nil {
			return err
		}
	}
	w.ui.wait("Waiting for the pods")
	defer w.ui.wait("")
	for _, d := range []string{"details-v1", "ratings-v1", "reviews-v1", "reviews-v2", "reviews-v3", "productpage-v1", "sleep", "notsleep"} {
		if err := Ready(ctx, w.API, "default", "Deployment", d); err != nil {
			return err
		}
	}
	w.ui.wait("")
	w.ui.command("ambit local get pods")
	return w.showPods(ctx, "default")
}
