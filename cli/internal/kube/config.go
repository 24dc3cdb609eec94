// Package kube reaches the objects and the pods of a Kubernetes cluster through its API server.
package kube

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/local"
)

// ErrNone means that no cluster is named anywhere.
var ErrNone = errors.New("no Kubernetes cluster is named: give --kubeconfig or set KUBECONFIG")

// Config is what a kubeconfig says of a cluster.
type Config struct {
	REST *rest.Config
	// Context is its name in the kubeconfig, Namespace what that says of names that have none.
	Context, Namespace string
	// From is where the kubeconfig is, for words.
	From string
	// LocalState is the directory of the local cluster that this leads to by a detour; "" for a real one.
	LocalState string
}

// Load reads a kubeconfig as kubectl does: the file given, or $KUBECONFIG, or the user's, or that of the pod we are in.
func Load(file, context string) (*Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = file
	from := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: context})
	conf, err := from.ClientConfig()
	if err != nil {
		return nil, unusable(err, file, context)
	}
	c := &Config{REST: conf, Context: context, From: place(file)}
	if c.Namespace, _, err = from.Namespace(); err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	raw, err := from.RawConfig()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	if c.Context == "" {
		c.Context = raw.CurrentContext
	}
	if at := raw.Contexts[c.Context]; at != nil {
		c.LocalState = localState(at.Extensions[local.Extension])
	}
	if len(raw.Contexts) == 0 {
		c.Context, c.From = "in-cluster", "the pod's service account"
	}
	return c, nil
}

// unusable says what is wrong with a kubeconfig.
func unusable(err error, file, context string) error {
	switch {
	case clientcmd.IsEmptyConfig(err) && file != "":
		return fmt.Errorf("kubeconfig: %s names no cluster", file)
	case clientcmd.IsEmptyConfig(err) && context != "":
		return fmt.Errorf("kubeconfig: %s names no cluster, so it has no context %s", place(file), context)
	case clientcmd.IsEmptyConfig(err) && os.Getenv(clientcmd.RecommendedConfigPathEnvVar) != "":
		return fmt.Errorf("kubeconfig: $KUBECONFIG, which is %s, names no cluster", os.Getenv(clientcmd.RecommendedConfigPathEnvVar))
	case clientcmd.IsEmptyConfig(err):
		return ErrNone
	case context != "":
		known := Contexts(file)
		if near, ok := kinds.Nearest(context, known); ok && near != context {
			return fmt.Errorf("kubeconfig: %w; did you mean %s?", err, near)
		}
		if len(known) > 0 && !slices.Contains(known, context) {
			return fmt.Errorf("kubeconfig: %w; %s has: %s", err, place(file), strings.Join(known, ", "))
		}
	}
	return fmt.Errorf("kubeconfig: %w", err)
}

// localState reads the directory that the gate of a local cluster wrote beside its context.
func localState(o runtime.Object) string {
	u, ok := o.(*runtime.Unknown)
	if !ok {
		return ""
	}
	var v struct{ State string }
	if json.Unmarshal(u.Raw, &v) != nil {
		return ""
	}
	return v.State
}

// place says where a kubeconfig is.
func place(file string) string {
	if file == "" && os.Getenv(clientcmd.RecommendedConfigPathEnvVar) != "" {
		return "$" + clientcmd.RecommendedConfigPathEnvVar
	}
	if file == "" {
		file = clientcmd.RecommendedHomeFile
	}
	if home, err := os.UserHomeDir(); err == nil {
		if rel, ok := strings.CutPrefix(file, home+string(filepath.Separator)); ok {
			return filepath.Join("~", rel)
		}
	}
	return file
}

// dialTimeout bounds how long a connection to the API server may take to be there.
const dialTimeout = 8 * time.Second

// prepared is the configuration with our own ways: who we are, and not to wait for a server that is not there.
func (c *Config) prepared(agent string) *rest.Config {
	conf := rest.CopyConfig(c.REST)
	conf.UserAgent = agent
	conf.WarningHandler = rest.NoWarnings{}
	conf.Dial = (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext
	return conf
}

// Contexts lists the names of a kubeconfig's contexts; none if it cannot be read.
func Contexts(file string) []string {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = file
	raw, err := rules.Load()
	if err != nil {
		return nil
	}
	return slices.Sorted(maps.Keys(raw.Contexts))
}
