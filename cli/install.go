package cli

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/cli/internal/install"
	"github.com/ambit-mesh/ambit/manifests"
)

// toKubernetes is what the commands that change a cluster share.
type toKubernetes struct {
	env              Env
	kubeconfig, name string
	charts           string
	set, files       []string
	revision         string
	yes, dryRun      bool
	verify           bool
	within           time.Duration
}

func (k *toKubernetes) connecting(c *cobra.Command) {
	c.Flags().StringVar(&k.kubeconfig, "kubeconfig", "", "kubeconfig file (default: $KUBECONFIG, then ~/.kube/config)")
	c.Flags().StringVar(&k.name, "context", "", "context of the kubeconfig")
}

func (k *toKubernetes) choosing(c *cobra.Command) {
	c.Flags().StringArrayVarP(&k.set, "set", "s", nil, "a setting, such as profile=ambient, values.global.hub=… or meshConfig.trustDomain=…; may be repeated")
	c.Flags().StringArrayVarP(&k.files, "filename", "f", nil, "file with an IstioOperator; may be repeated, - is standard input")
	c.Flags().StringVarP(&k.revision, "revision", "r", "", "revision of the control plane")
	c.Flags().StringVarP(&k.charts, "manifests", "d", "", "directory of charts instead of those in this program")
}

func (k *toKubernetes) waiting(c *cobra.Command) {
	c.Flags().BoolVarP(&k.yes, "skip-confirmation", "y", false, "do not ask")
	c.Flags().DurationVar(&k.within, "readiness-timeout", 5*time.Minute, "how long each component may take to be ready")
}

func newInstall(env Env, verb, short string) *cobra.Command {
	k := &toKubernetes{env: env}
	c := &cobra.Command{
		Use: verb, Short: short, Args: cobra.NoArgs,
		Long: short + ".\n\nWhat is there already is brought to what is asked for; what an earlier installation had and this one has not is removed.\n" +
			"Nothing that ambit did not install is touched.",
		Example: "  ambit " + verb + " --set profile=ambient -y\n  ambit " + verb + " --set profile=ambient --set values.global.hub=registry.example/mesh --set values.global.tag=v1",
		RunE:    func(c *cobra.Command, _ []string) error { return k.install(c.Context(), verb) },
	}
	k.connecting(c)
	k.choosing(c)
	k.waiting(c)
	c.Flags().BoolVar(&k.dryRun, "dry-run", false, "say what would be done, and do nothing")
	c.Flags().BoolVar(&k.verify, "verify", false, "afterwards, look whether everything is as it was applied")
	return c
}

// plan renders what the flags say, for a cluster or, with nil, for none.
func (k *toKubernetes) plan(ctx context.Context, cluster *install.Cluster) (*install.Plan, string, error) {
	o := install.Options{Set: k.set, Revision: k.revision}
	for _, name := range k.files {
		b, err := k.file(name)
		if err != nil {
			return nil, "", err
		}
		o.Files = append(o.Files, install.File{Name: name, YAML: b})
	}
	from := install.Source{Charts: manifests.Charts(), Version: k.env.Version}
	if k.charts != "" {
		from.Charts = os.DirFS(k.charts)
		if _, err := fs.Stat(from.Charts, "istiod/Chart.yaml"); err != nil {
			return nil, "", fmt.Errorf("--manifests %s: want a directory with the charts base, istiod, cni, ztunnel and gateway: %w", k.charts, err)
		}
	}
	why := ""
	if cluster != nil {
		var err error
		if from.Platform, why, err = cluster.Platform(ctx); err != nil {
			return nil, "", err
		}
	}
	p, err := install.Make(from, o)
	if err != nil {
		return nil, "", usageError{err}
	}
	return p, why, nil
}

func (k *toKubernetes) file(name string) ([]byte, error) {
	if name == "-" {
		return readAll(k.env.In, "standard input", maxObjects)
	}
	return readFile(name, maxObjects)
}

func (k *toKubernetes) install(ctx context.Context, verb string) error {
	cluster, err := install.Connect(k.kubeconfig, k.name)
	if err != nil {
		return err
	}
	p, why, err := k.plan(ctx, cluster)
	if err != nil {
		return err
	}
	out := k.env.Out
	if p.Detected {
		fmt.Fprintf(out, "Platform %s: %s (--set values.global.platform=none if that is wrong)\n", p.Platform, why)
	}
	report := k.report()
	i := &install.Installer{Cluster: cluster, Report: report, Within: k.within}
	stale, err := i.Stale(ctx, p)
	if err != nil {
		return err
	}
	var parts []string
	for _, s := range p.Steps {
		parts = append(parts, s.Name)
	}
	if k.dryRun || !k.yes {
		fmt.Fprintf(out, "Profile %s for cluster %s (%s), namespace %s: %s\n", p.Profile, cluster.Context, cluster.Server, p.Namespace, strings.Join(parts, ", "))
		for _, s := range stale {
			fmt.Fprintf(out, "  removes %s\n", s)
		}
	}
	if k.dryRun {
		return k.dry(ctx, i, p)
	}
	if !k.yes && !k.ask("Proceed? (y/N) ") {
		return fmt.Errorf("%s: not confirmed (-y does not ask)", verb)
	}
	did, err := i.Install(ctx, p)
	report.End()
	if err != nil {
		return err
	}
	if n := len(did.Left); n > 0 {
		fmt.Fprintf(out, "  %d definitions of others stay as they are, such as %s\n", n, did.Left[0])
	}
	for _, s := range did.Pruned {
		fmt.Fprintf(out, "  removed %s\n", s)
	}
	good := newPaint(out).good
	if k.verify {
		if err := i.Verify(ctx, p); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "%s Installation complete\n", good("✔"))
	switch {
	case len(did.Changed)+len(did.Pruned) == 0:
		fmt.Fprintln(out, "Nothing changed: all of it was in place.")
	case p.Ambient():
		fmt.Fprintln(out, "The ambient mesh is ready. A namespace joins with: kubectl label namespace NAME istio.io/dataplane-mode=ambient")
	}
	return nil
}

func (k *toKubernetes) dry(ctx context.Context, i *install.Installer, p *install.Plan) error {
	changes, err := i.Changes(ctx, p)
	if err != nil {
		return err
	}
	for _, c := range changes {
		fmt.Fprintf(k.env.Out, "  %s\n", c)
	}
	if len(changes) == 0 {
		fmt.Fprintln(k.env.Out, "  nothing would change")
	}
	return nil
}

func (k *toKubernetes) report() *install.Printer {
	return &install.Printer{Out: k.env.Out, Terminal: colored(k.env.Out), Good: newPaint(k.env.Out).good}
}

func (k *toKubernetes) ask(question string) bool {
	fmt.Fprint(k.env.Out, question)
	answer, err := bufio.NewReader(k.env.In).ReadString('\n')
	if err != nil && answer == "" {
		fmt.Fprintln(k.env.Out)
		return false
	}
	answer = strings.ToLower(strings.TrimSpace(answer))
	return answer == "y" || answer == "yes"
}
