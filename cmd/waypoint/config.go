package main

import (
	"cmp"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/mesh"
)

// config is what flags and environment say.
type config struct {
	role                          string // router: an ingress or egress gateway
	node, pod, namespace, account string
	ip                            string
	trustDomain, clusterID        string
	xds, ca, serverName           string
	token, root, meshRoot, crl    string
	log                           string
	logJSON                       bool
	trustedHops                   int
	settle, grace                 time.Duration
	readiness, metrics, admin     string
	prometheus                    string
	deployed, service, revision   string // names for metrics; empty: told from the pod's name
}

// parse reads arguments ("proxy router", as Istio's manifests write them, then flags) and environment.
func parse(args []string, env func(string) string, out io.Writer) (config, error) {
	c := config{
		role: "router", node: env("NODE_NAME"), pod: env("POD_NAME"), namespace: env("POD_NAMESPACE"), account: env("SERVICE_ACCOUNT"), ip: env("INSTANCE_IP"),
		trustDomain: cmp.Or(env("TRUST_DOMAIN"), mesh.TrustDomain), clusterID: cmp.Or(env("ISTIO_META_CLUSTER_ID"), mesh.ClusterID),
		deployed: env("ISTIO_META_WORKLOAD_NAME"), service: env("CANONICAL_SERVICE"), revision: cmp.Or(env("CANONICAL_REVISION"), "latest"),
		xds: cmp.Or(env("XDS_ADDRESS"), fmt.Sprintf("%s:%d", mesh.IstiodHost, mesh.PortXDS)), log: cmp.Or(env("LOG_LEVEL"), "info"),
	}
	c.ca = cmp.Or(env("CA_ADDRESS"), c.xds)
	for len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		if args[0] != "proxy" {
			c.role = args[0]
		}
		args = args[1:]
	}
	if c.role != "router" {
		return c, fmt.Errorf("role %q is not served by this version; it serves: router", c.role)
	}
	f := flag.NewFlagSet("waypoint", flag.ContinueOnError)
	f.SetOutput(out)
	f.StringVar(&c.xds, "xds", c.xds, "address of the control plane (env XDS_ADDRESS)")
	f.StringVar(&c.ca, "ca", c.ca, "address of the certificate authority (env CA_ADDRESS)")
	f.StringVar(&c.serverName, "server-name", cmp.Or(env("CA_SERVER_NAME"), mesh.IstiodHost), "name that both must prove in TLS")
	f.StringVar(&c.token, "token", cmp.Or(env("AUTH_TOKEN"), mesh.TokenPath), "file with our service account token")
	f.StringVar(&c.root, "root", cmp.Or(env("ROOT_CA_PATH"), mesh.RootCertPath), "file with the roots of control plane and authority")
	f.StringVar(&c.meshRoot, "mesh-root", cmp.Or(env("MESH_ROOT_CA"), mesh.RootCertPath), "file with the root certificates of the mesh, besides those that the certificate authority answers")
	f.StringVar(&c.crl, "crl", env("CRL_PATH"), "file with certificate revocation lists (env CRL_PATH)")
	f.StringVar(&c.log, "log-level", c.log, "debug, info, warn or error (env LOG_LEVEL)")
	f.BoolVar(&c.logJSON, "log-json", env("LOG_FORMAT") == "json", "write logs and access log as JSON (env LOG_FORMAT=json)")
	f.IntVar(&c.trustedHops, "trusted-hops", 0, "how many proxies before this one may write x-forwarded-for")
	f.DurationVar(&c.settle, "settle", 5*time.Second, "how long to accept connections after SIGTERM")
	f.DurationVar(&c.grace, "grace", 30*time.Second, "how long requests may finish after that")
	f.StringVar(&c.readiness, "readiness", fmt.Sprintf(":%d", mesh.PortReadiness), "where /healthz/ready is served")
	f.StringVar(&c.metrics, "metrics", fmt.Sprintf(":%d", mesh.PortMetrics), "where /metrics and /stats/prometheus are served")
	f.StringVar(&c.prometheus, "prometheus", ":15090", "where /stats/prometheus is served too, as at Envoy; empty: nowhere")
	f.StringVar(&c.admin, "admin", fmt.Sprintf("127.0.0.1:%d", mesh.PortAdmin), "where the debug server listens; empty: nowhere")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	if f.NArg() > 0 {
		return c, fmt.Errorf("argument %q is not understood", f.Arg(0))
	}
	for name, v := range map[string]string{"POD_NAME": c.pod, "POD_NAMESPACE": c.namespace, "SERVICE_ACCOUNT": c.account, "INSTANCE_IP": c.ip} {
		if v == "" {
			return c, fmt.Errorf("environment variable %s is not set; the manifest takes it from the pod", name)
		}
	}
	return c, nil
}

func (c config) id() identity.ID {
	return identity.ID{TrustDomain: c.trustDomain, Namespace: c.namespace, ServiceAccount: c.account}
}

// nodeID introduces us. The control plane believes the token about who we are, and this only for display.
func (c config) nodeID() string {
	return fmt.Sprintf("router~%s~%s.%s~%s.svc.%s", c.ip, c.pod, c.namespace, c.namespace, mesh.ClusterDomain)
}

// workload is the name of what was deployed: as the manifest says, else the pod's without the hashes that its Deployment
// added.
func (c config) workload() string {
	if c.deployed != "" {
		return c.deployed
	}
	parts := strings.Split(c.pod, "-")
	if len(parts) > 2 {
		return strings.Join(parts[:len(parts)-2], "-")
	}
	return c.pod
}
