package ztunnel

import (
	"crypto/x509"
	"encoding/pem"
	"net/netip"
	"time"

	"github.com/ambit-mesh/ambit/authz"
	"github.com/ambit-mesh/ambit/identity/certs"
	"github.com/ambit-mesh/ambit/telemetry"
	"github.com/ambit-mesh/ambit/ztunnel/internal/proxy"
)

// Dump is all that the proxy knows, under the keys of Istio's ztunnel. It holds no private key.
type Dump struct {
	Workloads     []DumpWorkload           `json:"workloads"`
	Services      []DumpService            `json:"services"`
	Policies      []DumpPolicy             `json:"policies"`
	Staged        map[string]any           `json:"stagedServices"`
	Static        map[string][]any         `json:"staticConfig"`
	Version       map[string]string        `json:"version"`
	Config        map[string]string        `json:"config"`
	Certificates  []DumpCertificates       `json:"certificates"`
	WorkloadState map[string]DumpPodOnNode `json:"workloadState"`
}

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

// Dump makes the value of /config_dump.
func (z *Ztunnel) Dump(version string) Dump {
	s := z.state.Snapshot()
	d := Dump{
		Workloads: []DumpWorkload{}, Services: []DumpService{}, Policies: []DumpPolicy{}, Certificates: []DumpCertificates{},
		Staged: map[string]any{}, Static: map[string][]any{"workloads": {}, "services": {}, "policies": {}},
		Version: map[string]string{"version": version},
		Config: map[string]string{
			"node": z.conf.Node, "clusterId": z.conf.ClusterID, "network": z.conf.Network, "trustDomain": z.conf.TrustDomain,
			"xdsAddress": z.conf.XDS.Address, "zdsSocket": z.conf.ZDSSocket, "grace": z.conf.Grace.String(),
		},
		WorkloadState: map[string]DumpPodOnNode{},
	}
	for _, w := range s.Workloads {
		d.Workloads = append(d.Workloads, dumpWorkload(w))
	}
	for _, svc := range s.Services {
		d.Services = append(d.Services, dumpService(svc, s.Endpoints[svc.Key()]))
	}
	for _, p := range s.Policies {
		action := "Deny"
		if p.Action.String() == "ALLOW" {
			action = "Allow"
		}
		d.Policies = append(d.Policies, DumpPolicy{p.Name, p.Namespace, p.Scope.String(), action, p.DryRun, p.Problem, p.Rules()})
	}
	for _, e := range z.certs.Entries() {
		d.Certificates = append(d.Certificates, dumpEntry(e))
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	for uid, r := range z.proxies {
		d.WorkloadState[uid] = dumpPod(r)
	}
	return d
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
		SerialNumber: c.SerialNumber.Text(16), ValidFrom: c.NotBefore.UTC().Format(time.RFC3339), ExpirationTime: c.NotAfter.UTC().Format(time.RFC3339),
	}
}

func dumpPod(r *running) DumpPodOnNode {
	out := DumpPodOnNode{
		State:       "Up",
		Connections: DumpConnections{[]DumpConnection{}, []DumpConnection{}},
		Info: map[string]string{
			"name": r.pod.Name, "namespace": r.pod.Namespace, "serviceAccount": r.pod.ServiceAccount,
		},
	}
	for _, c := range r.proxy.Connections() {
		x := dumpConnection(c)
		if c.Direction == telemetry.Inbound {
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
