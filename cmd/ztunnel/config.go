package main

import (
	"flag"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/telemetry"
)

// config is everything that enters from outside.
type config struct {
	node, pod, namespace, ip         string
	cluster, network, trustDomain    string
	prefer, resolv                   string
	meshRoot, crl                    string
	postQuantum                      bool
	dns, sameNode                    bool
	onDemand, registryOnly           bool
	policyLogs                       bool
	xds, ca, serverName, root, token string
	zds                              string
	admin, metrics, readiness        string
	grace, certTTL                   time.Duration
	gc                               int // percent that the heap may grow in calm; 0: GOGC says it
	levels, version                  string
	format                           telemetry.Format
}

// parse reads flags, with the environment as their defaults. The words "proxy ztunnel" of Istio's manifests are
// accepted before the flags.
func parse(args []string, getenv func(string) string, usage io.Writer) (config, error) {
	env := func(name, fallback string) string {
		if v := getenv(name); v != "" {
			return v
		}
		return fallback
	}
	for len(args) > 0 && (args[0] == "proxy" || args[0] == "ztunnel") {
		args = args[1:]
	}
	var c config
	control := mesh.IstiodHost + ":15012"
	f := flag.NewFlagSet("ztunnel", flag.ContinueOnError)
	f.SetOutput(usage)
	f.StringVar(&c.node, "node", env("NODE_NAME", ""), "name of this node (NODE_NAME)")
	f.StringVar(&c.pod, "pod", env("POD_NAME", ""), "name of this pod (POD_NAME)")
	f.StringVar(&c.namespace, "namespace", env("POD_NAMESPACE", mesh.SystemNamespace), "namespace of this pod (POD_NAMESPACE)")
	f.StringVar(&c.ip, "ip", env("INSTANCE_IP", ""), "address of this pod (INSTANCE_IP)")
	f.StringVar(&c.cluster, "cluster", env("CLUSTER_ID", env("ISTIO_META_CLUSTER_ID", mesh.ClusterID)), "id of this cluster (CLUSTER_ID)")
	f.StringVar(&c.network, "network", env("NETWORK", ""), "network of this node's pods (NETWORK)")
	f.StringVar(&c.trustDomain, "trust-domain", env("TRUST_DOMAIN", mesh.TrustDomain), "trust domain of the mesh (TRUST_DOMAIN)")
	f.StringVar(&c.xds, "xds", env("XDS_ADDRESS", control), "control plane, host:port (XDS_ADDRESS)")
	f.StringVar(&c.ca, "ca", env("CA_ADDRESS", control), "certificate authority, host:port (CA_ADDRESS)")
	f.StringVar(&c.serverName, "server-name", env("ALT_CA_HOSTNAME", mesh.IstiodHost), "name in the control plane's certificate (ALT_CA_HOSTNAME)")
	f.StringVar(&c.root, "root", env("XDS_ROOT_CA", mesh.RootCertPath), "file with the control plane's root certificate (XDS_ROOT_CA)")
	f.StringVar(&c.meshRoot, "mesh-root", env("MESH_ROOT_CA", mesh.RootCertPath), "file with the root certificates of the mesh, besides those that the certificate authority answers (MESH_ROOT_CA)")
	f.StringVar(&c.crl, "crl", env("CRL_PATH", ""), "file with certificate revocation lists (CRL_PATH)")
	f.BoolVar(&c.postQuantum, "post-quantum", env("COMPLIANCE_POLICY", "") == "pqc", "between proxies, refuse key exchanges that do not resist quantum computers (COMPLIANCE_POLICY=pqc)")
	f.StringVar(&c.token, "token", env("AUTH_TOKEN", mesh.TokenPath), "file with this pod's token (AUTH_TOKEN)")
	f.StringVar(&c.prefer, "prefer-namespace", env("PREFERED_SERVICE_NAMESPACE", ""), "namespace whose services come after those of the client's own (PREFERED_SERVICE_NAMESPACE)")
	f.StringVar(&c.resolv, "resolv-conf", "/etc/resolv.conf", "file that names the resolvers for what is not in the mesh")
	for _, b := range []struct {
		into                  *bool
		name, variable, about string
		fallback              string
	}{
		{&c.dns, "dns", "ISTIO_META_DNS_CAPTURE", "answer the DNS queries of pods", "true"},
		{&c.onDemand, "on-demand", "XDS_ON_DEMAND", "ask the control plane only for what connections need", "false"},
		{&c.registryOnly, "registry-only", "REGISTRY_ONLY", "refuse connections to what the mesh does not know", "false"},
		{&c.sameNode, "same-node-shortcut", "ENABLE_SAME_NODE_SHORTCUT", "carry connections between two pods of this node in memory, without encryption; identities, policies, logs and metrics stay as they are", "false"},
		{&c.policyLogs, "policy-logs", "AUTHZ_POLICY_INFO_LOGGING", "tell of every connection that policy admits", "false"},
	} {
		v, err := strconv.ParseBool(env(b.variable, b.fallback))
		if err != nil {
			return config{}, fmt.Errorf("%s: want true or false: %w", b.variable, err)
		}
		f.BoolVar(b.into, b.name, v, b.about+" ("+b.variable+")")
	}
	f.StringVar(&c.zds, "zds", env("INPOD_UDS", mesh.ZDSSocket), "socket of the node agent (INPOD_UDS)")
	f.StringVar(&c.admin, "admin", env("ADMIN_ADDR", "localhost:15000"), "address of the debug server (ADMIN_ADDR)")
	f.StringVar(&c.metrics, "metrics", env("STATS_ADDR", ":15020"), "address of the metrics (STATS_ADDR)")
	f.StringVar(&c.readiness, "readiness", env("READINESS_ADDR", ":15021"), "address of the readiness probe (READINESS_ADDR)")
	f.StringVar(&c.levels, "log", env("RUST_LOG", "info"), "log levels, such as info,access=warn (RUST_LOG)")
	format := f.String("log-format", env("LOG_FORMAT", ""), "text, json or walkthrough (LOG_FORMAT)")
	within, err := untilKilled(getenv("TERMINATION_GRACE_PERIOD_SECONDS"))
	if err != nil {
		return config{}, err
	}
	grace := f.String("grace", env("CONNECTION_TERMINATION_DEADLINE", within), "how long connections may finish at the end (CONNECTION_TERMINATION_DEADLINE, or 5s less than TERMINATION_GRACE_PERIOD_SECONDS)")
	certTTL := f.String("cert-ttl", env("SECRET_TTL", "24h"), "life of certificates to ask for; they are renewed after a third of it (SECRET_TTL)")
	if err := f.Parse(args); err != nil {
		return config{}, err
	}
	if f.NArg() > 0 {
		return config{}, fmt.Errorf("argument %q is not understood", f.Arg(0))
	}
	if c.format, err = telemetry.ParseFormat(*format); err != nil {
		return config{}, err
	}
	if c.grace, err = seconds(*grace); err != nil || c.grace <= 0 {
		return config{}, fmt.Errorf("grace %q: want a duration such as 30s", *grace)
	}
	if c.certTTL, err = seconds(*certTTL); err != nil || c.certTTL < time.Minute {
		return config{}, fmt.Errorf("cert-ttl %q: want a duration of a minute or more, such as 24h", *certTTL)
	}
	for name, addr := range map[string]string{"xds": c.xds, "ca": c.ca} {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return config{}, fmt.Errorf("%s address %q: want host:port: %w", name, addr, err)
		}
	}
	if p := getenv("COMPLIANCE_POLICY"); p != "" && p != "pqc" {
		return config{}, fmt.Errorf("COMPLIANCE_POLICY=%s is not supported, only pqc is", p)
	}
	if c.node == "" {
		return config{}, fmt.Errorf("name of the node is not known: set NODE_NAME or -node")
	}
	c.version = version
	return c, nil
}

// untilKilled is the time to drain where the kubelet kills us after so many seconds: some less, to end connections in
// our own words.
func untilKilled(period string) (string, error) {
	if period == "" {
		return "30s", nil
	}
	d, err := seconds(period)
	if err != nil || d <= 0 {
		return "", fmt.Errorf("TERMINATION_GRACE_PERIOD_SECONDS=%s: want a number of seconds such as 35", period)
	}
	if d > 10*time.Second {
		return (d - 5*time.Second).String(), nil
	}
	return max(d-time.Second, time.Second).String(), nil
}

// seconds reads a duration, or a bare number of seconds as Istio's charts write it.
func seconds(s string) (time.Duration, error) {
	if d, err := time.ParseDuration(s); err == nil {
		return d, nil
	}
	return time.ParseDuration(s + "s")
}
