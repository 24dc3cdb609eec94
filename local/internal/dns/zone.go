// Package dns answers for the names of a local cluster's Services and pods.
package dns

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// zone is every name of a cluster domain, made once for each change and never written again.
type zone struct {
	domain    string // "cluster.local."
	addresses map[string][]netip.Addr
	srv       map[string][]target
	ptr       map[string]string // address name → name
	nodes     map[string]bool   // names that exist, if only because something is below them
}

// target is one answer of an SRV question.
type target struct {
	name string
	port uint16
}

// newZone reads Services and EndpointSlices, as the Kubernetes DNS specification says (version 1.1).
func newZone(domain string, services []*corev1.Service, slices_ []*discoveryv1.EndpointSlice) *zone {
	z := &zone{
		domain: dns.CanonicalName(domain), addresses: map[string][]netip.Addr{}, srv: map[string][]target{},
		ptr: map[string]string{}, nodes: map[string]bool{},
	}
	of := map[string][]*discoveryv1.EndpointSlice{}
	for _, s := range slices_ {
		key := s.Namespace + "/" + s.Labels[discoveryv1.LabelServiceName]
		of[key] = append(of[key], s)
	}
	for _, s := range services {
		base := strings.ToLower(s.Name+"."+s.Namespace) + ".svc." + z.domain
		z.exists(base)
		switch {
		case s.Spec.Type == corev1.ServiceTypeExternalName:
		case s.Spec.ClusterIP == corev1.ClusterIPNone:
			z.headless(base, s, of[s.Namespace+"/"+s.Name])
		default:
			z.service(base, s)
		}
	}
	return z
}

// exists marks a name and those above it, which then answer "no data" instead of "no such name".
func (z *zone) exists(name string) {
	for name != z.domain && name != "." && name != "" {
		z.nodes[name] = true
		_, name, _ = strings.Cut(name, ".")
	}
}

func (z *zone) service(base string, s *corev1.Service) {
	for _, text := range s.Spec.ClusterIPs {
		ip, err := netip.ParseAddr(text)
		if err != nil {
			continue // not allocated yet
		}
		z.add(base, ip)
		z.ptr[arpa(ip)] = base
	}
	for _, p := range s.Spec.Ports {
		z.port(base, p.Name, string(p.Protocol), target{base, uint16(p.Port)})
	}
}

func (z *zone) headless(base string, s *corev1.Service, from []*discoveryv1.EndpointSlice) {
	for _, slice := range from {
		for _, e := range slice.Endpoints {
			ready := e.Conditions.Ready == nil || *e.Conditions.Ready
			if !ready && !s.Spec.PublishNotReadyAddresses {
				continue
			}
			for _, text := range e.Addresses {
				ip, err := netip.ParseAddr(text)
				if err != nil {
					continue
				}
				host := strings.NewReplacer(".", "-", ":", "-").Replace(text)
				if e.Hostname != nil && *e.Hostname != "" {
					host = strings.ToLower(*e.Hostname)
				}
				name := host + "." + base
				z.add(base, ip)
				z.add(name, ip)
				z.ptr[arpa(ip)] = name
				for _, p := range slice.Ports {
					if p.Port != nil {
						z.port(base, deref(p.Name), string(deref(p.Protocol)), target{name, uint16(*p.Port)})
					}
				}
			}
		}
	}
}

func deref[T any](p *T) (zero T) {
	if p == nil {
		return zero
	}
	return *p
}

func (z *zone) add(name string, ip netip.Addr) {
	z.exists(name)
	if ip = ip.Unmap(); !slices.Contains(z.addresses[name], ip) {
		z.addresses[name] = append(z.addresses[name], ip)
	}
}

func (z *zone) port(base, name, protocol string, t target) {
	if name == "" {
		return
	}
	full := "_" + strings.ToLower(name) + "._" + strings.ToLower(cmp.Or(protocol, "tcp")) + "." + base
	z.exists(full)
	z.srv[full] = append(z.srv[full], t)
}

func arpa(ip netip.Addr) string {
	name, err := dns.ReverseAddr(ip.String())
	if err != nil {
		return "" // an address always has a reverse name
	}
	return name
}

// answer gives the records for a question; known tells whether the name exists at all.
func (z *zone) answer(name string, qtype uint16) (records []dns.RR, extra []dns.RR, known bool) {
	head := func(name string, t uint16) dns.RR_Header {
		return dns.RR_Header{Name: name, Rrtype: t, Class: dns.ClassINET, Ttl: ttl}
	}
	addr := func(as, of string, t uint16) (rs []dns.RR) {
		for _, ip := range z.addresses[of] {
			switch {
			case ip.Is4() && t == dns.TypeA:
				rs = append(rs, &dns.A{Hdr: head(as, t), A: ip.AsSlice()})
			case ip.Is6() && t == dns.TypeAAAA:
				rs = append(rs, &dns.AAAA{Hdr: head(as, t), AAAA: ip.AsSlice()})
			}
		}
		return rs
	}
	low := dns.CanonicalName(name)
	switch qtype {
	case dns.TypeA, dns.TypeAAAA:
		records = addr(name, low, qtype)
	case dns.TypeSRV:
		for _, t := range z.srv[low] {
			records = append(records, &dns.SRV{Hdr: head(name, qtype), Priority: 0, Weight: uint16(100 / len(z.srv[low])), Port: t.port, Target: t.name})
			extra = append(extra, addr(t.name, t.name, dns.TypeA)...)
			extra = append(extra, addr(t.name, t.name, dns.TypeAAAA)...)
		}
	case dns.TypePTR:
		if to, ok := z.ptr[low]; ok {
			records = append(records, &dns.PTR{Hdr: head(name, qtype), Ptr: to})
		}
	}
	return records, extra, len(records) > 0 || z.nodes[low] || low == z.domain
}

// soa names the authority in negative answers, so that resolvers keep them for a short time.
func (z *zone) soa() dns.RR {
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: z.domain, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: ttl},
		Ns:  "ns.dns." + z.domain, Mbox: "hostmaster." + z.domain, Serial: 1, Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: ttl,
	}
}
