// Package proxy decides how a node of a local cluster carries connections to Services to their endpoints, as kube-proxy does.
package proxy

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/ambit-mesh/ambit/linux/nft"
)

// TableName of the rules in each node's namespace.
const TableName = "ambit-services"

// masqueradeMark is on connections that must leave with the node's own address; the bit is kube-proxy's.
const masqueradeMark = 0x4000

// Rules makes the table for one node: every Service port leads to a random ready endpoint, and is refused when there
// is none, as is every address of vips that no Service has. Source addresses are kept, but for connections from outside
// the cluster and of a pod to itself.
func Rules(node string, services []*corev1.Service, slices_ []*discoveryv1.EndpointSlice, vips []netip.Prefix) nft.Table {
	b := builder{node: node, slices: map[string][]*discoveryv1.EndpointSlice{}, hairpin: map[netip.Addr]bool{}}
	for _, s := range slices_ {
		key := s.Namespace + "/" + s.Labels[discoveryv1.LabelServiceName]
		b.slices[key] = append(b.slices[key], s)
	}
	sorted := slices.Clone(services)
	slices.SortFunc(sorted, func(a, c *corev1.Service) int {
		return cmp.Or(strings.Compare(a.Namespace, c.Namespace), strings.Compare(a.Name, c.Name))
	})
	for _, s := range sorted {
		b.service(s)
	}
	for _, p := range vips {
		// What still goes there has met no Service: left alone, its sender would wait for minutes.
		b.refuse = append(b.refuse, nft.If(nft.Daddr(p)).Then(nft.Reject()).Comment("no such service"))
	}
	return b.table()
}

type builder struct {
	node    string
	slices  map[string][]*discoveryv1.EndpointSlice
	dnat    []nft.Rule
	outside []nft.Rule // node ports: tried after the Services' own addresses
	refuse  []nft.Rule
	hairpin map[netip.Addr]bool
}

func (b *builder) service(s *corev1.Service) {
	if s.Spec.Type == corev1.ServiceTypeExternalName || s.Spec.ClusterIP == corev1.ClusterIPNone {
		return
	}
	var vips, external []netip.Addr
	for _, text := range s.Spec.ClusterIPs {
		if ip, err := netip.ParseAddr(text); err == nil {
			vips = append(vips, ip)
		}
	}
	for _, i := range s.Status.LoadBalancer.Ingress {
		if ip, err := netip.ParseAddr(i.IP); err == nil {
			external = append(external, ip)
		}
	}
	for _, p := range s.Spec.Ports {
		b.port(s, p, vips, external)
	}
}

func (b *builder) port(s *corev1.Service, p corev1.ServicePort, vips, external []netip.Addr) {
	var proto nft.Match
	switch p.Protocol {
	case corev1.ProtocolTCP, "":
		proto = nft.TCP()
	case corev1.ProtocolUDP:
		proto = nft.UDP()
	default:
		return // nothing of the mesh speaks SCTP
	}
	name := s.Namespace + "/" + s.Name + ":" + cmp.Or(p.Name, "port")
	v4, v6 := b.endpoints(s, p)
	of := func(a netip.Addr) []netip.AddrPort {
		if a.Is6() {
			return v6
		}
		return v4
	}
	for _, vip := range vips {
		to := nft.Daddr(nft.Host(vip))
		if eps := of(vip); len(eps) > 0 {
			b.dnat = append(b.dnat, nft.If(to, proto, nft.Dport(uint16(p.Port))).Then(nft.DNAT(eps...)).Comment(name))
		} else {
			b.refuse = append(b.refuse, nft.If(to, proto, nft.Dport(uint16(p.Port))).Then(nft.Reject()).Comment(name))
		}
	}
	for _, ip := range external {
		if eps := of(ip); len(eps) > 0 {
			b.dnat = append(b.dnat, nft.If(nft.Daddr(nft.Host(ip)), proto, nft.Dport(uint16(p.Port))).
				Then(nft.SetMarkBits(masqueradeMark, masqueradeMark), nft.DNAT(eps...)).Comment(name))
		}
	}
	if p.NodePort != 0 {
		for _, f := range []struct {
			is  nft.Match
			eps []netip.AddrPort
		}{{nft.V4(), v4}, {nft.V6(), v6}} {
			if len(f.eps) > 0 {
				b.outside = append(b.outside, nft.If(f.is, nft.DaddrLocal(), proto, nft.Dport(uint16(p.NodePort))).
					Then(nft.SetMarkBits(masqueradeMark, masqueradeMark), nft.DNAT(f.eps...)).Comment(name))
			}
		}
	}
	for _, e := range slices.Concat(v4, v6) {
		b.hairpin[e.Addr()] = true
	}
}

// endpoints are those that may get connections of a Service port: ready ones, by name of the port.
func (b *builder) endpoints(s *corev1.Service, p corev1.ServicePort) (v4, v6 []netip.AddrPort) {
	local := s.Spec.InternalTrafficPolicy != nil && *s.Spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal
	for _, slice := range b.slices[s.Namespace+"/"+s.Name] {
		for _, sp := range slice.Ports {
			if sp.Port == nil || (sp.Name != nil && *sp.Name != p.Name) || (sp.Protocol != nil && p.Protocol != "" && *sp.Protocol != p.Protocol) {
				continue
			}
			for _, e := range slice.Endpoints {
				if e.Conditions.Ready != nil && !*e.Conditions.Ready && !s.Spec.PublishNotReadyAddresses {
					continue
				}
				if local && (e.NodeName == nil || *e.NodeName != b.node) {
					continue
				}
				for _, text := range e.Addresses {
					ip, err := netip.ParseAddr(text)
					switch {
					case err != nil:
					case ip.Is4():
						v4 = append(v4, netip.AddrPortFrom(ip, uint16(*sp.Port)))
					default:
						v6 = append(v6, netip.AddrPortFrom(ip, uint16(*sp.Port)))
					}
				}
			}
		}
	}
	slices.SortFunc(v4, netip.AddrPort.Compare)
	slices.SortFunc(v6, netip.AddrPort.Compare)
	return slices.Compact(v4), slices.Compact(v6)
}

func (b *builder) table() nft.Table {
	var post []nft.Rule
	self := make([]netip.Addr, 0, len(b.hairpin))
	for ip := range b.hairpin {
		self = append(self, ip)
	}
	slices.SortFunc(self, netip.Addr.Compare)
	for _, ip := range self {
		post = append(post, nft.If(nft.Saddr(nft.Host(ip)), nft.Daddr(nft.Host(ip))).Then(nft.Masquerade()))
	}
	post = append(post, nft.If(nft.Mark(masqueradeMark, masqueradeMark)).Then(nft.Masquerade()))
	toServices := []nft.Rule{nft.If().Then(nft.Jump("services"))}
	refuse := []nft.Rule{nft.If().Then(nft.Jump("refused"))}
	return nft.Table{Family: nft.INet, Name: TableName, Chains: []nft.Chain{
		{Name: "services", Rules: slices.Concat(b.dnat, b.outside)},
		{Name: "refused", Rules: b.refuse},
		{Name: "prerouting", Type: nft.NAT, Hook: nft.Prerouting, Priority: nft.PriorityDNAT, Rules: toServices},
		{Name: "output", Type: nft.NAT, Hook: nft.Output, Priority: nft.PriorityDNAT, Rules: toServices},
		{Name: "postrouting", Type: nft.NAT, Hook: nft.Postrouting, Priority: nft.PrioritySNAT, Rules: post},
		{Name: "forward", Type: nft.Filter, Hook: nft.Forward, Priority: nft.PriorityFilter, Rules: refuse},
		{Name: "local", Type: nft.Filter, Hook: nft.Output, Priority: nft.PriorityFilter, Rules: refuse},
	}}
}
