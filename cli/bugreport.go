package cli

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/local/client"
)

// reportFlags are the options of bug-report.
type reportFlags struct {
	file       string
	include    []string
	exclude    []string
	tail       int
	skip       map[string]*bool
	timeout    time.Duration
	namespaces func(string) bool
}

// skippable are the parts of a report that one may leave out.
func skippable() []string { return []string{"objects", "logs", "dumps", "analyze", "machine"} }

func newBugReport(env Env) *cobra.Command {
	l := newLook(env)
	f := reportFlags{skip: map[string]*bool{}}
	c := &cobra.Command{
		Use: "bug-report", Short: "Collect logs, states and objects of the mesh into an archive", Args: cobra.NoArgs,
		Long: "Collect what is needed to find out what is wrong with a mesh into one archive: versions, objects with their events,\n" +
			"logs of the mesh's pods and of the pods in its namespaces, the states of control plane, ztunnels and gateways, what\n" +
			"analyze finds, and facts of this machine.\n\n" +
			"Private keys, tokens, values of Secrets and variables called like passwords are left out. Look into the archive before\n" +
			"you hand it on all the same: logs say what applications say.",
		Example: "  ambit bug-report\n  ambit bug-report -f report.tar.gz --include shop --tail 500\n  ambit bug-report --skip-logs",
		RunE: func(c *cobra.Command, _ []string) error {
			if f.file == "" {
				f.file = "ambit-bug-report-" + time.Now().UTC().Format("20060102-150405") + ".tar.gz"
			}
			f.namespaces = func(ns string) bool {
				return ns == "" || ns == systemNamespace || (len(f.include) == 0 || slices.Contains(f.include, ns)) && !slices.Contains(f.exclude, ns)
			}
			ctx, cancel := context.WithTimeout(c.Context(), f.timeout)
			defer cancel()
			return l.bugReport(ctx, f)
		},
	}
	l.flags(c)
	c.Flags().StringVarP(&f.file, "file", "f", "", "the archive to write (default ambit-bug-report-TIME.tar.gz here)")
	c.Flags().StringSliceVar(&f.include, "include", nil, "only these namespaces, besides "+systemNamespace+"; on Kubernetes by default those with pods in the mesh")
	c.Flags().StringSliceVar(&f.exclude, "exclude", []string{"kube-system"}, "not these namespaces")
	c.Flags().IntVar(&f.tail, "tail", 2000, "lines of each log, from its end")
	c.Flags().DurationVar(&f.timeout, "timeout", 5*time.Minute, "how long it may take")
	for _, part := range skippable() {
		f.skip[part] = c.Flags().Bool("skip-"+part, false, "leave the "+part+" out")
	}
	completeFlag(c, "include", l.objects("namespaces"))
	completeFlag(c, "exclude", l.objects("namespaces"))
	return c
}

func (l *look) bugReport(ctx context.Context, f reportFlags) (err error) {
	// Nothing is overwritten, and nobody else may read it.
	out, err := os.OpenFile(f.file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write the archive: %w; name another with -f", err)
	}
	a := newArchive(out)
	defer func() {
		if err != nil {
			_ = os.Remove(f.file) // half of one misleads
		}
	}()
	r := reporter{look: l, flags: f, archive: a, api: client.New(l.at.state)}
	if err := r.collect(ctx); err != nil {
		return joined(err, a.close(), out.Close())
	}
	if err := joined(a.close(), out.Close()); err != nil {
		return fmt.Errorf("write %s: %w", f.file, err)
	}
	fmt.Fprintf(l.env.Out, "%s written: %d files, %.1f MiB. Private keys, tokens and values of Secrets were left out; look into it before you hand it on.\n",
		f.file, a.files, float64(a.bytes)/(1<<20))
	for _, m := range r.missing {
		fmt.Fprintln(l.env.Err, "not in it: "+m)
	}
	return nil
}

// containersOf names the containers of a pod.
func containersOf(p *corev1.Pod) []string {
	var all []string
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for _, c := range list {
			all = append(all, c.Name)
		}
	}
	return all
}
