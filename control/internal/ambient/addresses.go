package ambient

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
	networkingv1alpha3 "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
)

// labelAutoAllocate opts an entry out of addresses with the value false.
const labelAutoAllocate = "networking.istio.io/enable-autoallocate-ip"

// Claim is a host of a ServiceEntry that needs an address, as it has none of its own.
type Claim struct{ Entry, Host string } // Entry is "namespace/name"

// Claims are the hosts of an entry that get addresses: those that a client could not otherwise tell from others.
func Claims(se *networkingv1.ServiceEntry) []Claim {
	if len(se.Spec.Addresses) > 0 || se.Spec.Resolution == networkingv1alpha3.ServiceEntry_NONE || strings.EqualFold(se.Labels[labelAutoAllocate], "false") {
		return nil
	}
	var out []Claim
	for _, host := range se.Spec.Hosts {
		c := Claim{se.Namespace + "/" + se.Name, strings.ToLower(host)}
		if !strings.Contains(host, "*") && !slices.Contains(out, c) {
			out = append(out, c)
		}
	}
	return out
}

// Slot is one IPv4 and one IPv6 address of the ranges for such hosts, 240.240.0.0/16 and 2001:2::/48. The zero value is none.
type Slot uint16

const slots = 1<<16 - 2 // without the first and the last address of the IPv4 range

// V4 is the slot's IPv4 address.
func (s Slot) V4() netip.Addr { return netip.AddrFrom4([4]byte{240, 240, byte(s >> 8), byte(s)}) }

// V6 is the slot's IPv6 address.
func (s Slot) V6() netip.Addr {
	a := [16]byte{0x20, 0x01, 0, 2, 12: 0xf0, 13: 0xf0}
	binary.BigEndian.PutUint16(a[14:], uint16(s))
	return netip.AddrFrom16(a)
}

// SlotOf finds the slot of an address, 0 for others.
func SlotOf(a netip.Addr) Slot {
	if a = a.Unmap(); a.Is4() {
		if b := a.As4(); b[0] == 240 && b[1] == 240 {
			return Slot(binary.BigEndian.Uint16(b[2:]))
		}
		return 0
	}
	b := a.As16()
	if s := Slot(binary.BigEndian.Uint16(b[14:])); s.V6() == a {
		return s
	}
	return 0
}

// Allocate gives every claim a slot. One that has a slot keeps it; a new one gets that which its name leads to, or the next
// that is free, so that several control planes come to the same. taken are slots of addresses that people chose themselves.
// Claims without a slot in the result found none: all are taken.
func Allocate(held map[Claim]Slot, claims []Claim, taken map[Slot]bool) map[Claim]Slot {
	out := make(map[Claim]Slot, len(claims))
	used := maps.Clone(taken)
	if used == nil {
		used = map[Slot]bool{}
	}
	for _, c := range claims {
		if s := held[c]; s != 0 && !used[s] {
			out[c], used[s] = s, true
		}
	}
	for _, c := range claims {
		if out[c] != 0 {
			continue
		}
		first := xxhash.Sum64String(c.Entry+"\x00"+c.Host) % slots
		for i := range uint64(slots) {
			if s := Slot((first+i)%slots + 1); !used[s] {
				out[c], used[s] = s, true
				break
			}
		}
	}
	return out
}

// Assigned are the addresses of an entry's hosts.
type Assigned struct {
	Entry string
	Hosts map[string]Slot
}

// SameAssigned reports whether two say the same.
func SameAssigned(a, b Assigned) bool { return a.Entry == b.Entry && maps.Equal(a.Hosts, b.Hosts) }

// Status is how addresses are kept in an entry's status.
func (a Assigned) Status() []*networkingv1alpha3.ServiceEntryAddress {
	var out []*networkingv1alpha3.ServiceEntryAddress
	for _, host := range slices.Sorted(maps.Keys(a.Hosts)) {
		for _, ip := range []netip.Addr{a.Hosts[host].V4(), a.Hosts[host].V6()} {
			out = append(out, &networkingv1alpha3.ServiceEntryAddress{Host: host, Value: ip.String()})
		}
	}
	return out
}

// Held are the slots that an entry's status speaks of.
func Held(se *networkingv1.ServiceEntry) map[Claim]Slot {
	out := map[Claim]Slot{}
	for _, a := range se.Status.GetAddresses() {
		if ip, err := netip.ParseAddr(a.GetValue()); err == nil {
			if s := SlotOf(ip); s != 0 {
				out[Claim{se.Namespace + "/" + se.Name, strings.ToLower(a.GetHost())}] = s
			}
		}
	}
	return out
}
