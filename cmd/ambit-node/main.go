// Command ambit-node is the node agent of the mesh.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ambit-mesh/ambit/lifecycle"
	"github.com/ambit-mesh/ambit/linux/memory"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/node"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := slog.New(handler(os.Getenv("LOG_FORMAT")))
	if err := run(ctx, log, os.Args[1:]); err != nil {
		log.Error("node agent ended", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, log *slog.Logger, args []string) error {
	const account = "/var/run/secrets/kubernetes.io/serviceaccount/"
	dnsCapture, err := strconv.ParseBool(env("AMBIENT_DNS_CAPTURE", "true"))
	if err != nil {
		return fmt.Errorf("AMBIENT_DNS_CAPTURE: want true or false: %w", err)
	}
	detectionRetry, err := strconv.ParseBool(env("ENABLE_AMBIENT_DETECTION_RETRY", "false"))
	if err != nil {
		return fmt.Errorf("ENABLE_AMBIENT_DETECTION_RETRY: want true or false: %w", err)
	}
	verifyHost, err := strconv.ParseBool(env("VERIFY_HOST", "true"))
	if err != nil {
		return fmt.Errorf("VERIFY_HOST: want true or false: %w", err)
	}
	owned, err := ownedConf()
	if err != nil {
		return err
	}
	f := flag.NewFlagSet("ambit-node", flag.ContinueOnError)
	c := node.Config{Log: log}
	f.StringVar(&c.NodeName, "node-name", os.Getenv("NODE_NAME"), "name of this node ($NODE_NAME)")
	f.StringVar(&c.APIServer, "api-server", inCluster(), "address of the Kubernetes API")
	f.StringVar(&c.TokenFile, "token-file", account+"token", "token for the API")
	f.StringVar(&c.CAFile, "ca-file", account+"ca.crt", "root certificates of the API")
	f.StringVar(&c.NetnsDir, "netns-dir", "/var/run/netns", "where the container runtime keeps network namespaces")
	f.StringVar(&c.ProcDir, "proc-dir", env("HOST_PROC", ""), "where /proc of the node is, to find pods by their processes; needs CAP_SYS_PTRACE ($HOST_PROC)")
	f.StringVar(&c.ZDSSocket, "zds-socket", mesh.ZDSSocket, "socket for node proxies")
	f.StringVar(&c.EventSocket, "event-socket", mesh.CNIEventSocket, "socket for the CNI plugin")
	f.StringVar(&c.BinDir, "cni-bin-dir", "/opt/cni/bin", "where to install the CNI plugin")
	f.StringVar(&c.ConfDir, "cni-conf-dir", "/etc/cni/net.d", "where the network configuration is")
	f.StringVar(&c.Plugin, "plugin", beside("ambit-cni"), "CNI plugin to install")
	f.StringVar(&c.PodNamespace, "pod-namespace", env("POD_NAMESPACE", mesh.SystemNamespace), "namespace of this agent ($POD_NAMESPACE)")
	f.StringVar(&c.DaemonSet, "daemonset", "istio-cni-node", "daemon set of this agent: if it is gone when the agent is told to end, plugin and rules go too; empty: never")
	f.StringVar(&c.PluginAccount, "plugin-service-account", os.Getenv("PLUGIN_SERVICE_ACCOUNT"), "service account, in the agent's namespace, as which the plugin asks the API while the agent is away; empty: with the agent's token, which ends with its pod ($PLUGIN_SERVICE_ACCOUNT)")
	f.StringVar(&c.ProxyAccount, "proxy-service-account", "ztunnel", "service account, in the agent's namespace, of the node proxies that get the pods' traffic")
	f.BoolVar(&c.DNSCapture, "dns-capture", dnsCapture, "redirect the DNS queries of pods to the node proxy ($AMBIENT_DNS_CAPTURE)")
	f.StringVar(&c.OwnedConf, "owned-conf", owned, "file name in the network configuration that is the agent's own, first by name; empty: the plugin is chained into the node's own ($ISTIO_OWNED_CNI_CONFIG_FILENAME, unless $ISTIO_OWNED_CNI_CONFIG is false)")
	f.StringVar(&c.EnablementSelectors, "enablement-selectors", os.Getenv("AMBIENT_ENABLEMENT_SELECTOR"), "JSON list of {podSelector, namespaceSelector} that are in the mesh, instead of the label istio.io/dataplane-mode ($AMBIENT_ENABLEMENT_SELECTOR)")
	f.BoolVar(&c.DetectionRetry, "detection-retry", detectionRetry, "let one call of the plugin try for 30s to learn whether a pod is of the mesh ($ENABLE_AMBIENT_DETECTION_RETRY)")
	f.StringVar(&c.ProbeSource, "probe-source", env("AMBIENT_PROBE_SOURCE", "link-local"), "where kubelet's probes of captured pods seem to come from: link-local, node (its own addresses, low ports) or addresses by comma ($AMBIENT_PROBE_SOURCE)")
	f.StringVar(&c.NodeAddrs, "node-addresses", os.Getenv("HOST_IPS"), "addresses of this node, by comma, for --probe-source node ($HOST_IPS)")
	f.StringVar(&c.PluginLogLevel, "plugin-log-level", os.Getenv("PLUGIN_LOG_LEVEL"), "debug, info, warn or error ($PLUGIN_LOG_LEVEL)")
	f.DurationVar(&c.RepairEvery, "repair-every", 15*time.Second, "how often the rules of captured pods are compared with the kernel's")
	f.BoolVar(&c.VerifyHost, "verify-host", verifyHost, "with --proc-dir, be ready only if the directories given are those that the node's runtime uses ($VERIFY_HOST)")
	excluded := f.String("exclude-namespaces", env("EXCLUDE_NAMESPACES", "kube-system"), "namespaces that are never in the mesh, by comma")
	health := f.String("health", ":8000", "address for /healthz and /readyz")
	metrics := f.String("metrics", ":15014", "address for /metrics")
	uninstall := f.Bool("uninstall", false, "take the plugin out of the host and exit")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if c.NodeName == "" {
		return errors.New("the node's name is not known: give --node-name or set NODE_NAME")
	}
	c.RunDir = filepath.Dir(c.EventSocket)
	for n := range strings.SplitSeq(*excluded+","+c.PodNamespace, ",") {
		if n = strings.TrimSpace(n); n != "" {
			c.ExcludeNamespaces = append(c.ExcludeNamespaces, n)
		}
	}
	if !*uninstall {
		if c.Health, err = net.Listen("tcp", *health); err != nil {
			return fmt.Errorf("listen for probes: %w", err)
		}
		if c.Metrics, err = net.Listen("tcp", *metrics); err != nil {
			return fmt.Errorf("listen for metrics: %w", err)
		}
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50) // a little of the collector's time for a small heap: an agent is on every node, and idle
	}
	n, err := node.New(c)
	if err != nil {
		return err
	}
	if *uninstall {
		return n.Uninstall()
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	g := lifecycle.NewGroup(ctx)
	g.Go("memory", func(ctx context.Context) error {
		return memory.Keep(ctx, 0, func(err error) { log.Warn("memory not given back", "error", err) })
	})
	g.Go("node agent", func(ctx context.Context) error {
		defer stop()
		return n.Run(ctx)
	})
	return g.Wait()
}

func inCluster() string {
	host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
	if host == "" {
		return ""
	}
	return "https://" + net.JoinHostPort(host, port)
}

// beside is a program in the directory of this one.
func beside(name string) string {
	exe, err := os.Executable()
	if err != nil {
		return name
	}
	return filepath.Join(filepath.Dir(exe), name)
}

// ownedConf is the file that Istio's variables name. What they turn on there is on here unless it is turned off: a node's network
// plugin that writes its configuration anew must not take ours out.
func ownedConf() (string, error) {
	own, err := strconv.ParseBool(env("ISTIO_OWNED_CNI_CONFIG", "true"))
	if err != nil {
		return "", fmt.Errorf("ISTIO_OWNED_CNI_CONFIG: want true or false: %w", err)
	}
	if !own {
		return "", nil
	}
	return env("ISTIO_OWNED_CNI_CONFIG_FILENAME", "02-istio-cni.conflist"), nil
}

func handler(format string) slog.Handler {
	if format == "json" {
		return slog.NewJSONHandler(os.Stdout, nil)
	}
	return slog.NewTextHandler(os.Stdout, nil)
}

func env(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}
