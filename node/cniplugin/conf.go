// Package cniplugin tells the node agent of each new pod before the pod's first process runs.
package cniplugin

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/ambit-mesh/ambit/node/internal/enroll"
)

// Conf is the plugin's part of a node's network configuration. Keys are those of Istio's plugin.
type Conf struct {
	types.NetConf
	// LogLevel is debug, info, warn or error. Default info.
	LogLevel string `json:"plugin_log_level,omitempty"`
	// RunDir is where the agent's sockets are. Default /var/run/istio-cni.
	RunDir string `json:"cni_agent_run_dir,omitempty"`
	// AmbientEnabled is always true in what the agent writes; false makes the plugin do nothing.
	AmbientEnabled bool `json:"ambient_enabled"`
	// ExcludeNamespaces are never told of.
	ExcludeNamespaces []string `json:"exclude_namespaces,omitempty"`
	// PodNamespace is the agent's own, whose pods must start without it.
	PodNamespace string `json:"pod_namespace,omitempty"`

	// EnableDetectionRetry makes one call wait for an agent that is away for 30 s instead of 10. Then the runtime tries again.
	EnableDetectionRetry bool `json:"enable_ambient_detection_retry,omitempty"`
	// AgentWait is how many seconds a call waits for an agent that is away, if not those.
	AgentWait *uint8 `json:"ambit_agent_wait_seconds,omitempty"`
	// Selectors are the agent's; see enroll.Rules.
	Selectors json.RawMessage `json:"enablement_selectors,omitempty"`
	// NativeNFTables is Istio's; here it is always so.
	NativeNFTables bool `json:"native_nftables,omitempty"`

	rules enroll.Rules
}

// Defaults of Conf.
const (
	DefaultRunDir = "/var/run/istio-cni"
	EventSocket   = "pluginevent.sock"
	LogSocket     = "log.sock"
	LogFile       = "istio-cni.log"
	// Kubeconfig is how to ask the API server while the agent is away.
	Kubeconfig = "istio-cni-kubeconfig"
)

// parseConf reads the configuration with the result of the plugins before this one.
func parseConf(stdin []byte) (*Conf, *current.Result, error) {
	c := &Conf{RunDir: DefaultRunDir}
	if err := json.Unmarshal(stdin, c); err != nil {
		return nil, nil, fmt.Errorf("read the network configuration: %w", err)
	}
	if c.RunDir == "" {
		c.RunDir = DefaultRunDir
	}
	if !filepath.IsAbs(c.RunDir) {
		return nil, nil, fmt.Errorf("cni_agent_run_dir %q is not an absolute path", c.RunDir)
	}
	c.rules.Excluded = c.ExcludeNamespaces
	if c.Selectors != nil {
		all, err := enroll.ParseSelectors(c.Selectors)
		if err != nil {
			return nil, nil, fmt.Errorf("read the network configuration: %w", err)
		}
		c.rules.Selectors = all
	}
	if c.RawPrevResult == nil {
		return c, nil, nil
	}
	if err := version.ParsePrevResult(&c.NetConf); err != nil {
		return nil, nil, fmt.Errorf("read the result of the plugin before: %w", err)
	}
	prev, err := current.NewResultFromResult(c.PrevResult)
	if err != nil {
		return nil, nil, fmt.Errorf("read the result of the plugin before: %w", err)
	}
	return c, prev, nil
}

// excludes tells namespaces whose pods are none of the agent's business.
func (c *Conf) excludes(namespace string) bool {
	return slices.Contains(c.ExcludeNamespaces, namespace)
}

// pod names a pod by the arguments that a container runtime passes.
type pod struct{ namespace, name, uid string }

func (p pod) String() string { return p.namespace + "/" + p.name }

// parseArgs reads CNI_ARGS: KEY=VALUE;KEY=VALUE.
func parseArgs(args string) pod {
	var p pod
	for part := range strings.SplitSeq(args, ";") {
		switch k, v, _ := strings.Cut(part, "="); k {
		case "K8S_POD_NAMESPACE":
			p.namespace = v
		case "K8S_POD_NAME":
			p.name = v
		case "K8S_POD_UID":
			p.uid = v
		}
	}
	return p
}
