package network

import (
	"fmt"
	"net/netip"
)

// Family is the address families of a cluster, in the words of kind.
type Family string

// Families. The first address of everything in a dual cluster is IPv4.
const (
	IPv4 Family = "ipv4"
	IPv6 Family = "ipv6"
	Dual Family = "dual"
)

// ParseFamily reads what a user says; "" is IPv4.
func ParseFamily(s string) (Family, error) {
	switch f := Family(s); f {
	case "":
		return IPv4, nil
	case IPv4, IPv6, Dual:
		return f, nil
	}
	return "", fmt.Errorf("IP family %q: use ipv4, ipv6 or dual", s)
}

// V4 reports whether the cluster has IPv4.
func (f Family) V4() bool { return f != IPv6 }

// V6 reports whether the cluster has IPv6.
func (f Family) V6() bool { return f == IPv6 || f == Dual }

// choose is what of two the cluster has, in its order.
func choose[T any](f Family, v4, v6 T) []T {
	var all []T
	if f.V4() {
		all = append(all, v4)
	}
	if f.V6() {
		all = append(all, v6)
	}
	return all
}

// Services are where the cluster's Services get their addresses from.
func (f Family) Services() []netip.Prefix {
	return choose(f, netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd00:10:96::/112"))
}

// Service is the n-th address of Services, in each family.
func (f Family) Service(n byte) []netip.Addr {
	var all []netip.Addr
	for _, p := range f.Services() {
		all = append(all, hostOf(p, n))
	}
	return all
}
