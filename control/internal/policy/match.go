package policy

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/emptypb"
	securityv1beta1 "istio.io/api/security/v1beta1"

	"github.com/ambit-mesh/ambit/api/authorization"
)

// operation converts the layer-4 part of a `to`; kept counts the fields that have values there.
func (c *conversion) operation(o *securityv1beta1.Operation) (m *authorization.Match, kept int) {
	c.unseen(o.ProtoReflect(), "ports", "notPorts")
	m = &authorization.Match{DestinationPorts: c.ports("ports", o.GetPorts()), NotDestinationPorts: c.ports("notPorts", o.GetNotPorts())}
	return m, len(o.GetPorts()) + len(o.GetNotPorts())
}

// source converts the layer-4 part of a `from`.
func (c *conversion) source(s *securityv1beta1.Source) (m *authorization.Match, kept int) {
	c.unseen(s.ProtoReflect(), "ipBlocks", "notIpBlocks", "namespaces", "notNamespaces", "serviceAccounts", "notServiceAccounts",
		"principals", "notPrincipals")
	m = &authorization.Match{
		SourceIps: c.blocks("ipBlocks", s.GetIpBlocks()), NotSourceIps: c.blocks("notIpBlocks", s.GetNotIpBlocks()),
		Namespaces: words(s.GetNamespaces()), NotNamespaces: words(s.GetNotNamespaces()),
		ServiceAccounts: c.accounts("serviceAccounts", s.GetServiceAccounts()), NotServiceAccounts: c.accounts("notServiceAccounts", s.GetNotServiceAccounts()),
		Principals: words(s.GetPrincipals()), NotPrincipals: words(s.GetNotPrincipals()),
	}
	return m, len(s.GetIpBlocks()) + len(s.GetNotIpBlocks()) + len(s.GetNamespaces()) + len(s.GetNotNamespaces()) +
		len(s.GetServiceAccounts()) + len(s.GetNotServiceAccounts()) + len(s.GetPrincipals()) + len(s.GetNotPrincipals())
}

// condition converts a `when`.
func (c *conversion) condition(w *securityv1beta1.Condition) (m *authorization.Match, kept int) {
	m, kept = &authorization.Match{}, len(w.GetValues())+len(w.GetNotValues())
	switch w.GetKey() {
	case "source.ip":
		m.SourceIps, m.NotSourceIps = c.blocks("values", w.Values), c.blocks("notValues", w.NotValues)
	case "source.namespace":
		m.Namespaces, m.NotNamespaces = words(w.Values), words(w.NotValues)
	case "source.principal":
		m.Principals, m.NotPrincipals = words(w.Values), words(w.NotValues)
	case "destination.ip":
		m.DestinationIps, m.NotDestinationIps = c.blocks("values", w.Values), c.blocks("notValues", w.NotValues)
	case "destination.port":
		m.DestinationPorts, m.NotDestinationPorts = c.ports("values", w.Values), c.ports("notValues", w.NotValues)
	default:
		c.http = append(c.http, c.place("key")+" "+w.GetKey())
		kept = 0
	}
	return m, kept
}

// unseen notes every field that is set and that layer 4 cannot see. What a later version of the API adds is among them.
func (c *conversion) unseen(m protoreflect.Message, seen ...string) {
	if !m.IsValid() {
		return
	}
	m.Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		if !slices.Contains(seen, f.JSONName()) {
			c.http = append(c.http, c.place(f.JSONName()))
		}
		return true
	})
}

func (c *conversion) ports(field string, values []string) []uint32 {
	var out []uint32
	for _, v := range values {
		n, err := strconv.ParseUint(v, 10, 16)
		if err != nil {
			c.bad = append(c.bad, c.place(field)+" "+strconv.Quote(v))
			continue
		}
		out = append(out, uint32(n))
	}
	return out
}

// blocks reads addresses and ranges in canonical form: an IPv4 address written as IPv6 means the IPv4 one.
func (c *conversion) blocks(field string, values []string) []*authorization.Address {
	var out []*authorization.Address
	for _, v := range values {
		p, err := ParseBlock(v)
		if err != nil {
			c.bad = append(c.bad, c.place(field)+" "+strconv.Quote(v))
			continue
		}
		out = append(out, &authorization.Address{Address: p.Addr().AsSlice(), Length: uint32(p.Bits())})
	}
	return out
}

// ParseBlock reads an address or a range in CIDR form.
func ParseBlock(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return netip.Prefix{}, err
		}
		a = a.Unmap().WithZone("")
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}

// accounts reads "namespace/name", or "name" in the policy's own namespace.
func (c *conversion) accounts(field string, values []string) []*authorization.ServiceAccountMatch {
	var out []*authorization.ServiceAccountMatch
	for _, v := range values {
		ns, name, ok := strings.Cut(v, "/")
		if !ok {
			ns, name = c.namespace, v
		}
		if ns == "" || name == "" || strings.ContainsAny(name, "/*") || strings.Contains(ns, "*") {
			c.bad = append(c.bad, c.place(field)+" "+strconv.Quote(v))
			continue
		}
		out = append(out, &authorization.ServiceAccountMatch{Namespace: ns, ServiceAccount: name})
	}
	return out
}

// words reads values that may be "*", begin or end with it.
func words(values []string) []*authorization.StringMatch {
	var out []*authorization.StringMatch
	for _, v := range values {
		out = append(out, word(v))
	}
	return out
}

func word(v string) *authorization.StringMatch {
	if v == "*" {
		return present()
	}
	if suffix, ok := strings.CutPrefix(v, "*"); ok {
		return &authorization.StringMatch{MatchType: &authorization.StringMatch_Suffix{Suffix: suffix}}
	}
	if prefix, ok := strings.CutSuffix(v, "*"); ok {
		return &authorization.StringMatch{MatchType: &authorization.StringMatch_Prefix{Prefix: prefix}}
	}
	return &authorization.StringMatch{MatchType: &authorization.StringMatch_Exact{Exact: v}}
}

func present() *authorization.StringMatch {
	return &authorization.StringMatch{MatchType: &authorization.StringMatch_Presence{Presence: &emptypb.Empty{}}}
}
