package cli

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/cli/internal/analyze"
	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/control/source/meshconfig"
	"github.com/ambit-mesh/ambit/local/table"
)

// exitFound is how analyze ends when it found something at or above its failure threshold, as istioctl's does.
const exitFound = exitStatus(79)

// analyzeFlags are the options of analyze.
type analyzeFlags struct {
	output, failure, least string
	suppress               []string
	kube, all, list        bool
	ignoreUnknown          bool
}

func newAnalyze(env Env) *cobra.Command {
	l := newLook(env)
	var f analyzeFlags
	var recursive bool
	c := &cobra.Command{
		Use: "analyze [FILE|DIRECTORY...]", Short: "Find mistakes in objects that are valid each for itself",
		Long: "Find mistakes among the objects of the mesh that runs, of files as if they were applied to it, or, with --use-kube=false,\n" +
			"of files alone. Every finding says where, what, and how to mend it.\n\n" +
			"Codes IST… are those of Istio's analyzers, AMB… of what only an ambient mesh can get wrong; --list-analyzers lists them.\n" +
			"An annotation galley.istio.io/analyze-suppress: CODE,… on an object leaves it out of a finding.\n\n" +
			"The exit status is 79 if anything at or above --failure-threshold was found.",
		Example: "  ambit analyze                                  # namespace default of the mesh that runs\n" +
			"  ambit analyze -A --failure-threshold Warning\n" +
			"  ambit analyze new-policy.yaml                  # as if it were applied\n" +
			"  ambit analyze --use-kube=false deploy/         # files alone, as in CI\n" +
			"  ambit analyze -S \"IST0118=Service web.shop\" -S \"AMB0010=*\"",
		RunE: func(c *cobra.Command, args []string) error {
			if f.list {
				return listChecks(env)
			}
			return l.analyze(c.Context(), f, args)
		},
	}
	l.flags(c)
	c.Flags().StringVarP(&l.namespace, "namespace", "n", "default", "namespace to tell of, and of objects in files that name none")
	c.Flags().BoolVarP(&f.all, "all-namespaces", "A", false, "tell of all namespaces")
	c.Flags().StringVarP(&f.output, "output", "o", "log", "log, json or yaml")
	c.Flags().StringVar(&f.failure, "failure-threshold", "Error", "level from which the exit status is 79: Info, Warning or Error")
	c.Flags().StringVar(&f.least, "output-threshold", "Info", "level from which findings are shown")
	c.Flags().StringArrayVarP(&f.suppress, "suppress", "S", nil, "leave out CODE=RESOURCE, such as \"IST0118=Service *.shop\"; may be repeated")
	c.Flags().BoolVarP(&f.kube, "use-kube", "k", true, "look at the mesh that runs")
	c.Flags().BoolVar(&f.ignoreUnknown, "ignore-unknown", false, "leave out objects of kinds that are not of the mesh")
	c.Flags().BoolVarP(&f.list, "list-analyzers", "L", false, "list what is looked for, with the codes")
	c.Flags().BoolVarP(&recursive, "recursive", "R", true, "enter the directories of a directory")
	l.completeNamespace(c)
	completeFlag(c, "output", words("log", "json", "yaml"))
	completeFlag(c, "failure-threshold", words("Info", "Warning", "Error"))
	completeFlag(c, "output-threshold", words("Info", "Warning", "Error"))
	if err := c.Flags().MarkHidden("recursive"); err != nil {
		panic(err) // there is such a flag
	}
	return c
}

func listChecks(env Env) error {
	rows := [][]string{{"ANALYZER", "CODES", "LOOKS FOR"}}
	for _, c := range analyze.Checks() {
		rows = append(rows, []string{c.Name, strings.Join(c.Codes, ","), c.About})
	}
	return table.Align(env.Out, rows)
}

func (l *look) analyze(ctx context.Context, f analyzeFlags, args []string) error {
	least, err := analyze.ParseLevel(f.least)
	if err != nil {
		return usage("--output-threshold: %w", err)
	}
	failure, err := analyze.ParseLevel(f.failure)
	if err != nil {
		return usage("--failure-threshold: %w", err)
	}
	if !slices.Contains([]string{"", "log", "json", "yaml"}, f.output) {
		return usage("unknown output %q: want log, json or yaml", f.output)
	}
	hide, err := l.suppressions(f.suppress)
	if err != nil {
		return err
	}
	if !f.kube && len(args) == 0 {
		return errors.New("name files to analyze, or leave --use-kube=false out to look at the mesh that runs")
	}
	in, unread, err := l.gather(ctx, f, args)
	if err != nil {
		return err
	}
	var shown []analyze.Message
	elsewhere, worst := 0, analyze.Level(-1)
	for _, m := range append(unread, analyze.Run(in)...) {
		if hide(m) {
			continue
		}
		if !f.all && f.kube && !m.FromFile() && m.Namespace() != "" && m.Namespace() != l.namespace {
			elsewhere++
			continue
		}
		worst = max(worst, m.Level)
		if m.Level >= least {
			shown = append(shown, m)
		}
	}
	if err := l.tell(shown, f, elsewhere); err != nil {
		return err
	}
	if worst >= failure {
		return exitFound
	}
	return nil
}

// gather reads the objects to analyze: the cluster's, and on top of them those of files. What cannot be read of a file is
// a finding.
func (l *look) gather(ctx context.Context, f analyzeFlags, args []string) (analyze.Input, []analyze.Message, error) {
	byName := map[string]kinds.Located{}
	add := func(o kinds.Located) {
		byName[kinds.Of(o.Object).Resource()+" "+o.Object.GetNamespace()+"/"+o.Object.GetName()] = o
	}
	in := analyze.Input{Live: f.kube}
	if f.kube {
		objects, unseen, err := l.everything(ctx)
		if err != nil {
			return in, nil, err
		}
		for _, o := range objects {
			add(kinds.Located{Object: o})
		}
		in.Unseen = unseen
		if in.TrustDomain, err = l.trustDomain(ctx); isForbidden(err) {
			in.Unseen = append(in.Unseen, "ConfigMap")
		}
		if l.namespace != "" && !f.all {
			if err := l.namespaceExists(ctx, l.namespace); err != nil {
				return in, nil, err
			}
		}
	}
	var unread []analyze.Message
	var texts []source
	if len(args) > 0 {
		var err error
		if texts, err = sources(l.env, args, true); err != nil {
			return in, nil, err
		}
	}
	for _, s := range texts {
		found, problems := read(s, f.ignoreUnknown)
		for _, p := range problems {
			unread = append(unread, analyze.FromProblem(p))
		}
		for _, o := range found {
			if kinds.Of(o.Object).Namespaced && o.Object.GetNamespace() == "" {
				o.Object.SetNamespace(l.namespace)
			}
			add(o)
		}
	}
	for _, o := range byName {
		in.Objects = append(in.Objects, o)
	}
	return in, unread, nil
}

// everything lists what has a say in findings, many kinds at a time, and names the kinds that this user may not see and
// that can be done without.
func (l *look) everything(ctx context.Context) (all []kinds.Object, unseen []string, failed error) {
	needed := slices.DeleteFunc(kinds.All(), func(k kinds.Kind) bool { return !analyze.Reads(k) })
	lists, errs := make([][]kinds.Object, len(needed)), make([]error, len(needed))
	m, room := l.mesh(), make(chan struct{}, 8)
	var asked sync.WaitGroup
	for i, k := range needed {
		room <- struct{}{}
		asked.Go(func() {
			defer func() { <-room }()
			lists[i], errs[i] = m.List(ctx, k, "", "")
		})
	}
	asked.Wait()
	var forbidden []string
	for i, k := range needed {
		switch err := errs[i]; {
		case err == nil:
			all = append(all, slices.DeleteFunc(lists[i], func(o kinds.Object) bool { return !analyze.Matters(o) })...)
		case isForbidden(err) && (k.Kind == "Secret" || k.Kind == "ServiceAccount"):
			unseen = append(unseen, k.Kind)
			fmt.Fprintf(l.env.Err, "Warning: you may not list %s: findings about them are left out\n", k.Plural)
		case isForbidden(err):
			forbidden = append(forbidden, k.Resource())
			failed = err
		default:
			return nil, nil, fmt.Errorf("list %s: %w", k.Plural, err) // the others say the same of a server that does not answer
		}
	}
	if len(forbidden) > 1 {
		return nil, nil, fmt.Errorf("of all namespaces you may not list %s: %w", strings.Join(forbidden, ", "), failed)
	}
	return all, unseen, failed
}

// trustDomain is what the mesh's configuration says; "" if it says none.
func (l *look) trustDomain(ctx context.Context) (string, error) {
	o, err := l.mesh().Get(ctx, kindNamed("configmaps"), systemNamespace, "istio")
	if err != nil {
		return "", err
	}
	c, _, err := meshconfig.Parse([]byte(o.(*corev1.ConfigMap).Data["mesh"]))
	return c.TrustDomain, err
}

// read decodes a text; with lenient, kinds that are not of the mesh are left out.
func read(s source, lenient bool) ([]kinds.Located, kinds.Problems) {
	var found []kinds.Located
	var err error
	if lenient {
		found, _, err = kinds.DecodeKnown(s.name, s.text)
	} else {
		found, err = kinds.Decode(s.name, s.text)
	}
	var several kinds.Problems
	var one kinds.Problem
	switch {
	case err == nil:
		return found, nil
	case errors.As(err, &several):
		return nil, several
	case errors.As(err, &one):
		return nil, kinds.Problems{one}
	}
	return nil, kinds.Problems{{File: s.name, What: err.Error()}}
}

// suppressions reads --suppress CODE=RESOURCE, where RESOURCE is "Kind name.namespace" with wildcards.
func (l *look) suppressions(all []string) (func(analyze.Message) bool, error) {
	type rule struct{ code, resource string }
	var rules []rule
	for _, s := range all {
		code, resource, ok := strings.Cut(s, "=")
		if !ok || code == "" || resource == "" {
			return nil, usage("--suppress %q: write CODE=RESOURCE, such as \"IST0118=Service web.shop\"", s)
		}
		if _, err := path.Match(resource, ""); err != nil {
			return nil, usage("--suppress %q: %w", s, err)
		}
		if !slices.Contains(analyze.Codes(), code) {
			fmt.Fprintf(l.env.Err, "Warning: no finding has the code %s, so leaving it out changes nothing; see ambit analyze --list-analyzers\n", code)
		}
		rules = append(rules, rule{code, resource})
	}
	return func(m analyze.Message) bool {
		return slices.ContainsFunc(rules, func(r rule) bool {
			ok, err := path.Match(r.resource, m.Origin)
			return r.code == m.Code && ok && err == nil
		})
	}, nil
}

func (l *look) tell(found []analyze.Message, f analyzeFlags, elsewhere int) error {
	if f.output == "json" || f.output == "yaml" {
		return encode(l.env.Out, f.output, append([]analyze.Message{}, found...))
	}
	p := newPaint(l.env.Out)
	for _, m := range found {
		word := m.Level.String()
		tone := map[analyze.Level]func(string) string{analyze.Error: p.bad, analyze.Warning: p.warn, analyze.Info: p.faint}[m.Level]
		fmt.Fprintln(l.env.Out, tone(word)+table.Plain(strings.TrimPrefix(m.Line(), word)))
		if m.Hint != "" {
			fmt.Fprintln(l.env.Out, p.faint("    → "+table.Plain(m.Hint)))
		}
	}
	what := "namespace " + l.namespace
	switch {
	case !f.kube:
		what = "the files"
	case f.all:
		what = "all namespaces"
	}
	if len(found) == 0 {
		fmt.Fprintf(l.env.Err, "✔ No validation issues found when analyzing %s.\n", what)
	}
	if elsewhere > 0 {
		fmt.Fprintf(l.env.Err, "There are %d findings in other namespaces; -A shows them.\n", elsewhere)
	}
	return nil
}
