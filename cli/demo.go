package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/cli/internal/demo"
	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/local"
	"github.com/ambit-mesh/ambit/local/client"
)

func newDemo(env Env) *cobra.Command {
	var keep bool
	var port int
	c := &cobra.Command{
		Use: "demo", Short: "Run a whole ambient mesh on this machine and walk through it", Args: cobra.NoArgs,
		Long: "Start a cluster of three nodes in namespaces of this machine, install the mesh, deploy bookinfo, and show step by step how it\n" +
			"captures, encrypts, identifies, authorizes and logs the application's traffic. The exit status is 0 only if every step held.\n" +
			"It needs neither root nor any other program, and leaves nothing behind.",
		RunE: func(c *cobra.Command, _ []string) error { return runDemo(c.Context(), env, keep, port) },
	}
	c.Flags().BoolVar(&keep, "keep", false, "leave the cluster running until Ctrl-C")
	c.Flags().IntVar(&port, "ingress-port", 0, "port of 127.0.0.1 that leads to the ingress gateway; 0: 8080 if it is free")
	return c
}

func runDemo(ctx context.Context, env Env, keep bool, port int) (err error) {
	if err := preflight(ctx, env); err != nil {
		return err
	}
	bin, err := binaries()
	if err != nil {
		return err
	}
	dir, remove, err := ownDir("ambit-demo-")
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, remove())
		if ctx.Err() != nil && onlyInterrupted(ctx, err) {
			fmt.Fprintln(env.Err, "Interrupted; nothing of it is left on this machine.")
			err = context.Cause(ctx)
		}
	}()
	state := filepath.Join(dir, "cluster")
	api := client.New(state)
	w := demo.New(demo.Config{Out: env.Out, Color: colored(env.Out), API: api, Exec: podExec(api, dir), Ambit: inProcess(env, state)})
	var cl *local.Cluster
	err = w.Step(ctx, "Start a cluster of three nodes: one control plane, two workers", func(ctx context.Context) error {
		var err error
		if cl, err = local.Up(ctx, local.Config{State: state, Nodes: 3, Bin: bin, IngressPort: port}); err == nil {
			w.Ingress = cl.Ingress
		}
		return err
	})
	if err == nil {
		err = w.Run(ctx)
	}
	err = errors.Join(err, w.Summary())
	if cl == nil {
		return err
	}
	if err != nil && ctx.Err() == nil {
		fmt.Fprint(env.Err, clusterLog(state))
	}
	if err == nil && keep {
		fmt.Fprintf(env.Out, "\nThe cluster runs on. Use it with:\n  ambit local --state %s get pods -A\nOpen %s/productpage in a browser after\n  ambit local --state %s delete authorizationpolicy productpage-viewer\nEnd it with Ctrl-C.\n", state, cl.Ingress, state)
		<-ctx.Done()
	}
	if err = errors.Join(err, cl.Close()); err == nil && !keep {
		fmt.Fprintln(env.Out, "Nothing of it is left on this machine. To work with such a mesh:  ambit local up")
	}
	return err
}

// onlyInterrupted tells whether nothing went wrong but that the person ended the demo.
func onlyInterrupted(ctx context.Context, err error) bool {
	return !slices.ContainsFunc(each(err), func(err error) bool {
		return !errors.Is(err, demo.ErrInterrupted) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.Cause(ctx))
	})
}

// clusterLog is the end of the cluster's own log, for a run that failed.
func clusterLog(state string) string {
	b, err := os.ReadFile(filepath.Join(state, "cluster.log"))
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return "The cluster's last words:\n  " + strings.Join(lines[max(0, len(lines)-15):], "\n  ") + "\n"
}

// colored tells whether output goes to a terminal that is not asked to stay plain (no-color.org).
func colored(out io.Writer) bool {
	f, ok := out.(*os.File)
	return ok && client.IsTerminal(f) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// inProcess runs command lines on a cluster, as if they had been typed.
func inProcess(env Env, state string) func(context.Context, string, ...string) (string, int) {
	return func(ctx context.Context, in string, args ...string) (string, int) {
		var out strings.Builder
		words := append(slices.Clone(args), "--state", state)
		code := Run(ctx, Env{In: strings.NewReader(in), Out: &out, Err: &out, Version: env.Version}, words)
		return out.String(), code
	}
}

// podExec runs programs in a Deployment's first running pod and collects their output.
func podExec(api *client.Client, dir string) func(context.Context, string, string, ...string) (string, int, error) {
	podKind, _ := kinds.Find("pods")
	return func(ctx context.Context, namespace, deployment string, argv ...string) (string, int, error) {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		pods, err := api.List(ctx, podKind, namespace, "app="+deployment)
		if err != nil {
			return "", 0, err
		}
		for _, o := range pods {
			if p, ok := o.(*corev1.Pod); ok && p.Status.Phase == corev1.PodRunning && p.DeletionTimestamp == nil {
				return capture(ctx, api, dir, client.ExecRequest{Namespace: namespace, Pod: p.Name, Argv: argv})
			}
		}
		return "", 0, fmt.Errorf("no pod of %s/%s is running", namespace, deployment)
	}
}

// capture runs a program with a file as its output: the program writes to it itself.
func capture(ctx context.Context, api *client.Client, dir string, req client.ExecRequest) (string, int, error) {
	out, err := os.CreateTemp(dir, "output-")
	if err != nil {
		return "", 0, err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return "", 0, err
	}
	defer null.Close()
	code, err := api.Exec(ctx, req, null, out, out)
	if err != nil {
		return "", 0, err
	}
	b, err := os.ReadFile(out.Name())
	return string(b), code, err
}
