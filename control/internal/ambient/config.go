// Package ambient turns Kubernetes and Istio objects into the workloads and services that node proxies know.
package ambient

import (
	"net/netip"

	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/mesh"
)

// Config is what all workloads and services of a cluster share.
type Config struct {
	ClusterID     string // first part of every workload's uid
	Network       string // "" is the one flat network
	TrustDomain   string // left out of workloads when it is mesh.TrustDomain, the default of both ends
	ClusterDomain string // suffix of service host names
	RootNamespace string // policies here apply to all namespaces
}

func (c Config) trustDomain() string {
	if c.TrustDomain == mesh.TrustDomain {
		return ""
	}
	return c.TrustDomain
}

// Hostname is the name of a Kubernetes Service inside the cluster.
func (c Config) Hostname(name, namespace string) string {
	return name + "." + namespace + ".svc." + c.ClusterDomain
}

// address reads an IP address in canonical form: an IPv4 address written as IPv6 is the IPv4 one.
func address(s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, false
	}
	return a.Unmap(), true
}

// networkAddress reads an IP address or a range.
func (c Config) networkAddress(s string) (*workload.NetworkAddress, bool) {
	if a, ok := address(s); ok {
		return &workload.NetworkAddress{Network: c.Network, Address: a.AsSlice()}, true
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return nil, false
	}
	p = p.Masked()
	n := &workload.NetworkAddress{Network: c.Network, Address: p.Addr().AsSlice()}
	if p.Bits() != p.Addr().BitLen() {
		n.Length = new(uint32(p.Bits()))
	}
	return n, true
}

// first is the value of the first of keys that labels has.
func first(labels map[string]string, keys ...string) string {
	for _, k := range keys {
		if v, ok := labels[k]; ok {
			return v
		}
	}
	return ""
}

// canonical names the service a workload belongs to in telemetry, and its revision.
func canonical(labels map[string]string, workloadName string) (name, revision string) {
	name = first(labels, mesh.LabelCanonicalName, "app.kubernetes.io/name", "app")
	if name == "" {
		name = workloadName
	}
	revision = first(labels, mesh.LabelCanonicalRevision, "app.kubernetes.io/version", "version")
	if revision == "" {
		revision = "latest"
	}
	return name, revision
}

// selects reports whether labels have everything that selector asks for. An empty selector selects nothing: that of a
// Service means that somebody else names its endpoints.
func selects(selector, labels map[string]string) bool {
	for k, v := range selector {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return len(selector) > 0
}
