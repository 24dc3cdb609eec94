package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/cli/internal/kube"
	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/local"
	"github.com/ambit-mesh/ambit/local/client"
	"github.com/ambit-mesh/ambit/local/table"
)

// wish is what a command line says of the cluster that is meant.
type wish struct {
	local, stated       bool // --local or --state is given
	state               string
	kubeconfig, context string
	within              time.Duration
}

// site is the cluster whose mesh a command looks into.
type site struct {
	reach
	// state is a local cluster's directory; "" for Kubernetes.
	state string
	// tool is how a person looks into it by hand.
	tool string
	// namespace is that of names that say none; "" leaves it to the command.
	namespace string
	// note is what to say before it is used: that there is another one, too.
	note string
}

// surroundings are what a choice depends on besides the command line.
type surroundings struct {
	env  string // $KUBECONFIG
	runs func(state string) bool
	load func(kubeconfig, context string) (*kube.Config, error)
}

func realSurroundings() surroundings {
	return surroundings{
		env: os.Getenv("KUBECONFIG"), load: kube.Load,
		runs: func(state string) bool { return client.New(state).Runs() },
	}
}

// choose finds the cluster that is meant: what the command line names, else what $KUBECONFIG does, else the local cluster if
// it runs, else what the user's kubeconfig names. Where two come into question it says which it takes. conf is nil for a
// local cluster.
func (w wish) choose(s surroundings) (conf *kube.Config, state, note string, err error) {
	named := w.kubeconfig != "" || w.context != ""
	switch {
	case (w.local || w.stated) && named:
		return nil, "", "", usage("--local and --state mean the cluster of this machine, --kubeconfig and --context another: give one or the other")
	case w.local || w.stated:
		return nil, w.state, "", nil
	case named || s.env != "":
		if conf, err = s.load(w.kubeconfig, w.context); err != nil {
			if !named && s.runs(w.state) {
				err = fmt.Errorf("%w; --local looks at the cluster of this machine", err)
			}
			return nil, "", "", err
		}
		if conf.LocalState != "" {
			return nil, conf.LocalState, "", nil
		}
		if !named && s.runs(w.state) {
			note = fmt.Sprintf("Looking at cluster %s, of $KUBECONFIG. A local cluster runs too: --local looks at that.", conf.Context)
		}
		return conf, "", note, nil
	case s.runs(w.state):
		if conf, err := s.load("", ""); err == nil && conf.LocalState == "" {
			note = fmt.Sprintf("Looking at the local cluster. %s names one too: --context %s looks at that.", conf.From, conf.Context)
		}
		return nil, w.state, note, nil
	}
	conf, err = s.load("", "")
	switch {
	case errors.Is(err, kube.ErrNone):
		return nil, "", "", fmt.Errorf("no local cluster is running (%s), and no other is named; start one with: ambit local up, or set KUBECONFIG or give --kubeconfig for a Kubernetes", w.state)
	case err != nil:
		return nil, "", "", err
	case conf.LocalState != "":
		return nil, conf.LocalState, "", nil
	}
	return conf, "", "", nil
}

// site connects to the cluster that is meant. Where there is none every question gets the reason as its answer: not every
// command asks one.
func (w wish) site(env Env) site {
	conf, state, note, err := w.choose(realSurroundings())
	switch {
	case err != nil:
		return site{reach: absent{err}, tool: "kubectl"}
	case conf == nil:
		return site{reach: client.New(state), state: state, tool: "ambit local", note: note}
	}
	k, err := kube.New(conf, "ambit/"+cmp.Or(env.Version, "dev"))
	if err != nil {
		return site{reach: absent{err}, tool: "kubectl"}
	}
	k.Within = w.within
	var mu sync.Mutex // guards the output: kinds are listed side by side
	k.Unread = func(kind kinds.Kind, namespace, name string, err error) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(env.Err, "Warning: %s %s cannot be read, and is left out: %s\n", kind.Kind, strings.TrimPrefix(namespace+"/"+name, "/"), table.Plain(err.Error()))
	}
	tool := "kubectl"
	if w.kubeconfig != "" {
		tool += " --kubeconfig " + w.kubeconfig
	}
	if w.context != "" {
		tool += " --context " + w.context
	}
	return site{reach: k, tool: tool, namespace: conf.Namespace, note: note}
}

// absent stands for a cluster that is not there.
type absent struct{ err error }

func (a absent) Get(context.Context, kinds.Kind, string, string) (kinds.Object, error) {
	return nil, a.err
}

func (a absent) List(context.Context, kinds.Kind, string, string) ([]kinds.Object, error) {
	return nil, a.err
}

func (a absent) Pod(context.Context, string, string, string, int, string) ([]byte, error) {
	return nil, a.err
}

func (a absent) Logs(context.Context, string, string, client.LogOptions) (io.ReadCloser, error) {
	return nil, a.err
}

// flags adds those by which the mesh is found.
func (l *look) flags(c *cobra.Command) {
	f := c.PersistentFlags()
	f.StringVar(&l.wish.kubeconfig, "kubeconfig", "", "kubeconfig file of the cluster (default: $KUBECONFIG, then ~/.kube/config)")
	f.StringVar(&l.wish.context, "context", "", "context of the kubeconfig")
	f.BoolVar(&l.wish.local, "local", false, "the local cluster of this machine, whatever else is named")
	f.StringVar(&l.wish.state, "state", local.DefaultState(), "directory that holds the local cluster")
	f.IntVar(&l.adminPort, "proxy-admin-port", 15000, "port of a ztunnel's admin server")
	f.DurationVar(&l.wish.within, "pod-timeout", kube.DefaultWithin, "how long a pod of the mesh may take to answer")
	completeFlag(c, "context", l.contexts)
	// The namespace of a kubeconfig's context must be known before the command begins.
	c.PersistentPreRun = func(c *cobra.Command, _ []string) {
		l.settle()
		if n := c.Flags().Lookup("namespace"); n != nil && !n.Changed && n.DefValue == "default" && l.at.namespace != "" {
			l.namespace = l.at.namespace
		}
	}
	l.stated = f.Lookup("state")
}

// settle decides once which cluster is meant.
func (l *look) settle() {
	l.settled.Do(func() {
		l.wish.stated = l.stated.Changed
		l.at = l.wish.site(l.env)
	})
}

// contexts offers the names of a kubeconfig's contexts.
func (l *look) contexts(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return kube.Contexts(l.wish.kubeconfig), cobra.ShellCompDirectiveNoFileComp
}

// mesh is the cluster that is meant. Whoever might think that it is another one is told, once.
func (l *look) mesh() reach {
	l.settle()
	l.told.Do(func() {
		if l.at.note != "" {
			fmt.Fprintln(l.env.Err, newPaint(l.env.Err).faint(l.at.note))
		}
	})
	return l.at
}

// see says how a person looks for themselves: `kubectl get pods -A`.
func (l *look) see(words ...string) string {
	return "`" + cmp.Or(l.at.tool, "ambit local") + " " + strings.Join(words, " ") + "`"
}
