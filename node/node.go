// Package node is the node agent: it enrols the pods of a node, redirects their traffic and tells the node proxy.
package node

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/ambit-mesh/ambit/lifecycle"
	"github.com/ambit-mesh/ambit/node/internal/capture"
	"github.com/ambit-mesh/ambit/node/internal/enroll"
	"github.com/ambit-mesh/ambit/node/internal/hostconf"
	"github.com/ambit-mesh/ambit/node/internal/objects"
	"github.com/ambit-mesh/ambit/node/internal/plugintoken"
	"github.com/ambit-mesh/ambit/node/internal/podwatch"
	"github.com/ambit-mesh/ambit/node/internal/procns"
	"github.com/ambit-mesh/ambit/node/internal/redirect"
	"github.com/ambit-mesh/ambit/node/internal/zds"
)

// Config of a node agent.
type Config struct {
	// NodeName is this node's, as the API server knows it.
	NodeName string
	// APIServer, TokenFile and CAFile are how to talk to the API server.
	APIServer, TokenFile, CAFile string
	// NetnsDir is where the container runtime keeps the network namespaces of pods.
	NetnsDir string
	// ProcDir is where the node's own processes are to be seen. Default "": pods are found in NetnsDir alone, by their addresses.
	ProcDir string
	// ZDSSocket and EventSocket are where the node proxy and the plugin connect.
	ZDSSocket, EventSocket string
	// Plugin is the binary to install into BinDir, chained into the first list of ConfDir. RunDir is EventSocket's
	// directory as the host sees it.
	Plugin, BinDir, ConfDir, RunDir string
	// VerifyHost makes the agent compare BinDir and ConfDir with what the node's runtime uses, where ProcDir shows it, and not be
	// ready while they differ.
	VerifyHost bool
	// OwnedConf is a file name in ConfDir, first by name, for a copy of the node's own configuration with the plugin in it.
	// Default "": the plugin is chained into the node's own. See hostconf.Config.
	OwnedConf string
	// EnablementSelectors are a JSON list of selectors of pods and namespaces that are in the mesh. Default "": those with
	// the label istio.io/dataplane-mode=ambient.
	EnablementSelectors string
	// DetectionRetry makes one call of the plugin try for 30 s when neither agent nor API server can be asked.
	DetectionRetry bool
	// PluginLogLevel is debug, info, warn or error. Default info.
	PluginLogLevel string
	// ExcludeNamespaces are never in the mesh.
	ExcludeNamespaces []string
	// PodNamespace is the agent's own, and the node proxies'.
	PodNamespace string
	// PluginAccount is a service account, in PodNamespace, that the plugin asks the API server as while the agent is away. Default "":
	// with the agent's own token, which ends with the agent's pod.
	PluginAccount string
	// DaemonSet is the agent's own, in PodNamespace: when it is gone as the agent ends, no other agent will come. Default "": it
	// never counts as gone.
	DaemonSet string
	// ProxyAccount is the service account of the node proxies: processes in their pods' network namespaces are handed the
	// traffic of the mesh's pods, and nobody else is. Default ztunnel.
	ProxyAccount string
	// DNSCapture redirects the DNS queries of pods that do not say otherwise.
	DNSCapture bool
	// ProbeSource is where kubelet's probes of captured pods seem to come from: link-local, node, or addresses by comma. Default
	// link-local. NodeAddrs are the node's own addresses, by comma.
	ProbeSource, NodeAddrs string
	// RepairEvery is how often the rules of captured pods are compared with the kernel's. Default 15s.
	RepairEvery time.Duration
	// LeaveAfter is how long a pod that leaves the mesh can still be reached as one of it, so long the others may take to
	// learn of it, and then how long what its proxy has in hand may take to end. Default 1s.
	LeaveAfter time.Duration
	// Health and Metrics are where to serve /healthz, /readyz and /metrics.
	Health, Metrics net.Listener
	Log             *slog.Logger
}

// Node is the agent of one node.
type Node struct {
	conf  Config
	agent *agent
	host  *hostconf.Keeper
	token *plugintoken.Keeper // nil without an account of the plugin's own

	misplaced atomic.Pointer[string] // what is wrong with the directories that the agent was given; nil for nothing
}

// New makes an agent; Run works.
func New(c Config) (*Node, error) {
	if c.RepairEvery == 0 {
		c.RepairEvery = 15 * time.Second
	}
	if c.ProxyAccount == "" {
		c.ProxyAccount = "ztunnel"
	}
	if c.LeaveAfter == 0 {
		c.LeaveAfter = time.Second
	}
	rules := enroll.Rules{Excluded: c.ExcludeNamespaces}
	if c.EnablementSelectors != "" {
		var err error
		if rules.Selectors, err = enroll.ParseSelectors([]byte(c.EnablementSelectors)); err != nil {
			return nil, err
		}
	}
	source, err := capture.ParseSource(c.ProbeSource, c.NodeAddrs)
	if err != nil {
		return nil, fmt.Errorf("source of probes %q: %w", c.ProbeSource, err)
	}
	api, err := podwatch.NewClient(podwatch.ClientConfig{URL: c.APIServer, TokenFile: c.TokenFile, CAFile: c.CAFile})
	if err != nil {
		return nil, err
	}
	q := newQueue()
	a := &agent{conf: c, rules: rules, api: api, probes: &redirect.Probes{Source: source}, log: c.Log, queue: q, pods: newPods(), spaces: &spaces{dir: c.NetnsDir}, plans: &plans{}}
	if c.ProcDir != "" {
		a.spaces.procs, a.spaces.known = procns.New(c.ProcDir), func(uid string) bool { return a.watch.Has(uid) }
	}
	a.watch = podwatch.New(api, c.NodeName, c.Log, func(k objects.Key, change podwatch.Change) {
		a.counts.looks.WithLabelValues(string(change)).Inc()
		q.put(k)
	})
	a.zds = zds.New(zds.Config{Socket: c.ZDSSocket, Trusted: a.isProxy, Changed: a.lookAll, Log: c.Log})
	n := &Node{conf: c, agent: a}
	a.counts = newCounters(a.zds, n.ready, n.pluginTokenEnds)
	host := hostconf.Config{
		Plugin: c.Plugin, BinDir: c.BinDir, ConfDir: c.ConfDir, RunDir: c.RunDir,
		ExcludeNamespaces: c.ExcludeNamespaces, PodNamespace: c.PodNamespace, Selectors: c.EnablementSelectors,
		DetectionRetry: c.DetectionRetry, LogLevel: c.PluginLogLevel, Log: c.Log,
		APIServer: c.APIServer, TokenFile: c.TokenFile, CAFile: c.CAFile, AgentRunDir: filepath.Dir(c.EventSocket),
		Owned: c.OwnedConf, Installed: func(r hostconf.Result) { a.counts.installs.WithLabelValues(string(r)).Inc() },
	}
	if n.token = newPluginToken(c, api); n.token != nil {
		host.Token, host.Renewed = n.token.Token, n.token.Changed()
	}
	n.host = hostconf.New(host)
	return n, nil
}

// Run works until ctx ends. It then leaves capture, plugin and configuration in place: pods stay protected, and new ones
// of the mesh wait for the next agent. Only if its daemon set is gone it takes everything away.
func (n *Node) Run(ctx context.Context) error {
	a := n.agent
	if _, err := a.probes.Ensure(); err != nil {
		return err
	}
	err := a.probes.Guard()
	if a.guarded = err == nil; err != nil {
		n.conf.Log.Warn("pods of one bridge, if this node has any, could forge probes to each other", "error", err)
	}
	g := lifecycle.NewGroup(ctx)
	n.startPluginToken(g)
	g.Go("pods", a.watch.Run)
	g.Go("node proxies", a.adopt)
	g.Go("plugin events", a.serveEvents)
	g.Go("plugin log", a.servePluginLog)
	g.Go("host configuration", n.host.Run)
	g.Go("host's directories", n.watchHost)
	g.Go("enrolment", func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return nil
		case <-a.watch.Synced(): // a pod without its namespace cannot be judged
		}
		return a.queue.run(ctx, a.log, a.look)
	})
	g.Go("repair", a.repair)
	g.Go("health", func(ctx context.Context) error { return lifecycle.HTTP{}.Serve(ctx, n.conf.Health, n.health()) })
	g.Go("metrics", func(ctx context.Context) error {
		mux := http.NewServeMux()
		mux.Handle("GET /metrics", promhttp.HandlerFor(a.counts.registry, promhttp.HandlerOpts{}))
		return lifecycle.HTTP{}.Serve(ctx, n.conf.Metrics, mux)
	})
	if err := g.Wait(); err != nil || ctx.Err() == nil || !n.removed() {
		return err
	}
	return n.leave()
}

// repair looks after every pod from time to time: rules that somebody changed, a proxy that refused a pod.
func (a *agent) repair(ctx context.Context) error {
	t := time.NewTicker(a.conf.RepairEvery)
	defer t.Stop()
	for pruned := false; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		if a.guarded {
			if err := a.probes.Guard(); err != nil {
				a.log.Warn("guard of bridges not repaired", "error", err)
			}
		}
		if changed, err := a.probes.Ensure(); err != nil {
			a.log.Warn("probe exemption not repaired", "error", err)
		} else if changed {
			a.log.Warn("probe exemption was changed and is repaired")
		}
		if !pruned && a.zds.Serving() { // every pod that an earlier agent left has been taken over
			pruned = a.prune()
		}
		a.lookAll()
	}
}

// pending is what the agent still waits for before it is ready. A proxy is not asked for: it is installed after the agent.
func (n *Node) pending() []string {
	var pending []string
	select {
	case <-n.agent.watch.Synced():
	default:
		pending = append(pending, "pods of this node")
	}
	if !n.agent.zds.Serving() {
		pending = append(pending, "pods of an earlier agent")
	}
	if !n.host.Installed() {
		pending = append(pending, "plugin on the host")
	}
	if wrong := n.misplaced.Load(); wrong != nil {
		pending = append(pending, *wrong)
	}
	return pending
}

func (n *Node) ready() bool { return len(n.pending()) == 0 }

// health answers kubelet: alive at once, ready when the pods are known and the plugin is in place.
func (n *Node) health() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if pending := n.pending(); len(pending) > 0 {
			http.Error(w, "not ready, pending: "+strings.Join(pending, ", "), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	return mux
}
