package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/local"
	"github.com/ambit-mesh/ambit/local/client"
)

// scope is what the verbs of `ambit local` share.
type scope struct {
	env       Env
	state     string
	namespace string
}

func (s *scope) client() *client.Client { return client.New(s.state) }

func newLocal(env Env) *cobra.Command {
	s := &scope{env: env}
	c := group(&cobra.Command{
		Use:   "local",
		Short: "Run and use a cluster on this machine",
		Long: "Run a cluster of several nodes on this Linux machine, without Kubernetes, Docker or root, and use it with the verbs of kubectl.\n" +
			"Nodes and pods are network namespaces; objects are ordinary Kubernetes YAML in a directory.",
	})
	c.PersistentFlags().StringVar(&s.state, "state", local.DefaultState(), "directory that holds the cluster")
	c.PersistentFlags().StringVarP(&s.namespace, "namespace", "n", "default", "namespace of the objects")
	c.AddCommand(

		newUp(s), newDown(s), newStatus(s),
		newGet(s), newKinds(s), newCreate(s), newPatch(s), newApply(s), newDelete(s), newMark(s, "label"), newMark(s, "annotate"), newScale(s), newRollout(s), newWait(s),
		newDescribe(s), newLogs(s), newExec(s), newPortForward(s), newProxy(s), newEvents(s), newTop(s), newEdit(s), newCopy(s),
		newPlug(s, false), newPlug(s, true), newKill(s),
	)
	for _, verb := range c.Commands() {
		switch verb.Name() {
		case "get", "delete", "patch", "label", "annotate", "scale", "wait", "describe", "edit":
			verb.ValidArgsFunction = s.kindsAndNames
		case "rollout":
			for _, sub := range verb.Commands() {
				sub.ValidArgsFunction = s.kindsAndNames
			}
		case "logs", "exec", "kill":
			verb.ValidArgsFunction = s.pods
		}
	}
	if err := c.RegisterFlagCompletionFunc("namespace", s.namespaces); err != nil {
		panic(err) // there is such a flag
	}
	return c
}

// target is one object, or all of a kind when name is "".
type target struct {
	kind kinds.Kind
	name string
}

// targets reads KIND NAME..., KIND/NAME... and KIND,KIND.
func targets(args []string) ([]target, error) {
	if len(args) == 0 {
		return nil, fmt.Errorf("name a kind, such as pods or deployments")
	}
	kindOf := func(word string) (kinds.Kind, error) {
		if k, ok := kinds.Find(word); ok {
			return k, nil
		}
		return kinds.Kind{}, unknownKind(word)
	}
	var all []target
	if strings.Contains(args[0], "/") {
		for _, a := range args {
			word, name, ok := strings.Cut(a, "/")
			if !ok || name == "" {
				return nil, fmt.Errorf("%q: write every object as KIND/NAME when one is", a)
			}
			k, err := kindOf(word)
			if err != nil {
				return nil, err
			}
			all = append(all, target{k, name})
		}
		return all, nil
	}
	words := strings.Split(args[0], ",")
	if args[0] == "all" {
		words = []string{"pods", "services", "daemonsets", "deployments", "replicasets", "statefulsets", "jobs"}
	}
	for _, word := range words {
		k, err := kindOf(word)
		if err != nil {
			return nil, err
		}
		if len(args) == 1 {
			all = append(all, target{kind: k})
		}
		for _, name := range args[1:] {
			all = append(all, target{k, name})
		}
	}
	return all, nil
}

// binaries is the directory of this program, where the others are.
func binaries() (string, error) {
	exe, err := os.Executable()
	if err == nil {
		exe, err = filepath.EvalSymlinks(exe)
	}
	if err != nil {
		return "", fmt.Errorf("find ambit's own directory: %w", err)
	}
	return filepath.Dir(exe), nil
}
