package ztunnel

import (
	"crypto/x509"
	"encoding/pem"
	"io"
	"net/netip"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"github.com/ambit-mesh/ambit/authz"
	"github.com/ambit-mesh/ambit/identity/certs"
	"github.com/ambit-mesh/ambit/telemetry"
	"github.com/ambit-mesh/ambit/ztunnel/internal/proxy"
	"github.com/ambit-mesh/ambit/ztunnel/internal/state"
)

// DumpPolicy is one policy.
type DumpPolicy struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
	Scope     string `json:"scope"`
	Action    string `json:"action"`
	DryRun    bool   `json:"dryRun"`
	Problem   string `json:"problem,omitempty"`

	Rules [][][]authz.Match `json:"rules"`
}

// DumpCertificates are the certificates of an identity.
type DumpCertificates struct {
	Identity  string            `json:"identity"`
	State     string            `json:"state"`
	Error     string            `json:"error,omitempty"`
	CertChain []DumpCertificate `json:"certChain"`
	RootCerts []DumpCertificate `json:"rootCerts"`
}

// DumpCertificate is one certificate.
type DumpCertificate struct {
	PEM            []byte `json:"pem"` // in base64, as istioctl reads it
	SerialNumber   string `json:"serialNumber"`
	ValidFrom      string `json:"validFrom"`
	ExpirationTime string `json:"expirationTime"`
}

// DumpPodOnNode is a pod that this proxy serves.
type DumpPodOnNode struct {
	State       string            `json:"state"`
	Connections DumpConnections   `json:"connections"`
	Info        map[string]string `json:"info"`
}

// DumpConnections are what a pod has open.
type DumpConnections struct {
	Inbound  []DumpConnection `json:"inbound"`
	Outbound []DumpConnection `json:"outbound"`
}

// DumpConnection is one connection.
type DumpConnection struct {
	Src         string `json:"src"`
	OriginalDst string `json:"originalDst"`
	ActualDst   string `json:"actualDst"`
	Protocol    string `json:"protocol"`
}

// WriteDump writes /config_dump: all that the proxy knows, under the keys of Istio's ztunnel. It holds no private key.
// One entry after the other is made and written, so that a large mesh takes no more memory than a small one.
func (z *Ztunnel) WriteDump(w io.Writer, version string) error {
	d := &dumper{w: w}
	s := z.state.Snapshot()
	list(d, "workloads", slices.Values(s.Workloads), dumpWorkload)
	list(d, "services", slices.Values(s.Services), func(svc *state.Service) DumpService { return dumpService(svc, s.Endpoints[svc.Key()]) })
	list(d, "policies", slices.Values(s.Policies), dumpPolicy)
	d.value("stagedServices", map[string]any{})
	d.value("staticConfig", map[string][]any{"workloads": {}, "services": {}, "policies": {}})
	d.value("version", dumpVersion(version))
	d.value("config", z.dumpConfig())
	list(d, "certificates", slices.Values(z.certs.Entries()), dumpEntry)
	pods := map[string]DumpPodOnNode{}
	z.mu.Lock()
	for uid, r := range z.proxies {
		pods[uid] = z.dumpPod(r)
	}
	z.mu.Unlock()
	d.value("workloadState", pods)
	return d.end()
}

func dumpPolicy(p *authz.Policy) DumpPolicy {
	action := "Deny"
	if p.Action.String() == "ALLOW" {
		action = "Allow"
	}
	return DumpPolicy{p.Name, p.Namespace, p.Scope.String(), action, p.DryRun, p.Problem, p.Rules()}
}

func dumpVersion(version string) map[string]string {
	out := map[string]string{"version": version, "istioVersion": version, "goVersion": runtime.Version(), "gitRevision": "", "buildStatus": ""}
	if b, ok := debug.ReadBuildInfo(); ok {
		for _, s := range b.Settings {
			switch s.Key {
			case "vcs.revision":
				out["gitRevision"] = s.Value
			case "vcs.modified":
				out["buildStatus"] = map[string]string{"true": "Modified", "false": "Clean"}[s.Value]
			}
		}
	}
	return out
}

func (z *Ztunnel) dumpConfig() map[string]any {
	c := z.conf
	return map[string]any{
		"localNode": c.Node, "clusterId": c.ClusterID, "network": c.Network, "trustDomain": c.TrustDomain, "xdsAddress": c.XDS.Address,
		"zdsSocket": c.ZDSSocket, "selfTerminationDeadline": c.Grace.String(), "dnsProxy": !c.NoDNS, "dnsResolvers": c.Resolvers,
		"preferedServiceNamespace": c.PreferredNamespace, "xdsOnDemand": c.OnDemand, "registryOnly": c.RegistryOnly, "authzPolicyInfoLogging": c.PolicyLogs,
		"postQuantum": c.PostQuantum, "sameNodeShortcut": c.SameNode, "rootFile": c.RootFile, "crlFile": c.CRLFile,
	}
}

func dumpEntry(e certs.Entry) DumpCertificates {
	out := DumpCertificates{Identity: e.ID.String(), State: string(e.State), Error: e.Error, CertChain: []DumpCertificate{}, RootCerts: []DumpCertificate{}}
	for _, c := range e.Chain {
		out.CertChain = append(out.CertChain, dumpCertificate(c))
	}
	for _, c := range e.Roots {
		out.RootCerts = append(out.RootCerts, dumpCertificate(c))
	}
	return out
}

func dumpCertificate(c *x509.Certificate) DumpCertificate {
	return DumpCertificate{
		PEM:          pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}),
		SerialNumber: c.SerialNumber.String(), ValidFrom: c.NotBefore.UTC().Format(time.RFC3339), ExpirationTime: c.NotAfter.UTC().Format(time.RFC3339),
	}
}

func (z *Ztunnel) dumpPod(r *running) DumpPodOnNode {
	out := DumpPodOnNode{
		State:       "Up",
		Connections: DumpConnections{[]DumpConnection{}, []DumpConnection{}},
		Info: map[string]string{
			"name": r.pod.Name, "namespace": r.pod.Namespace, "serviceAccount": r.pod.ServiceAccount,
			"trustDomain": z.conf.TrustDomain,
		},
	}
	if r.pending {
		out.State = "Pending"
	}
	for _, c := range r.proxy.Connections() {
		x := dumpConnection(c)
		if c.Direction == telemetry.Inbound {
			x.OriginalDst = c.Service // Istio's ztunnel names what the client meant, or nothing
			out.Connections.Inbound = append(out.Connections.Inbound, x)
		} else {
			out.Connections.Outbound = append(out.Connections.Outbound, x)
		}
	}
	return out
}

func dumpConnection(c proxy.Connection) DumpConnection {
	text := func(a netip.AddrPort) string {
		if !a.IsValid() {
			return ""
		}
		return a.String()
	}
	return DumpConnection{text(c.Src), text(c.Dialled), text(c.Actual), c.Protocol}
}
