package link

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/linux/nlsock"
)

// AddAddr gives an interface an address. IPv6 addresses are usable at once, without duplicate detection.
func AddAddr(ns *netns.Namespace, name string, addr netip.Prefix) error {
	return onLink(ns, fmt.Sprintf("add address %s to interface", addr), name, func(h *netlink.Handle, l netlink.Link) error {
		a := &netlink.Addr{IPNet: ipNet(addr)}
		if addr.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD
		}
		return h.AddrReplace(l, a)
	})
}

// DeleteAddr takes an address from an interface.
func DeleteAddr(ns *netns.Namespace, name string, addr netip.Prefix) error {
	return onLink(ns, fmt.Sprintf("delete address %s of interface", addr), name, func(h *netlink.Handle, l netlink.Link) error {
		err := h.AddrDel(l, &netlink.Addr{IPNet: ipNet(addr)})
		if errors.Is(err, unix.EADDRNOTAVAIL) {
			return nil
		}
		return err
	})
}

// Address is one address of one interface.
type Address struct {
	Link   string
	Prefix netip.Prefix
}

// IPs lists the addresses of all interfaces: what Addrs lists without asking for the interfaces.
func IPs(ns *netns.Namespace) ([]netip.Addr, error) {
	var m nlsock.Messages
	m.Begin(unix.RTM_GETADDR, unix.NLM_F_DUMP, make([]byte, unix.SizeofIfAddrmsg)...)
	var answers []nlsock.Answer
	err := nlsock.With(ns, unix.NETLINK_ROUTE, func(s *nlsock.Socket) (err error) {
		answers, err = s.Dump(&m)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var all []netip.Addr
	for _, a := range answers {
		if len(a.Body) < unix.SizeofIfAddrmsg {
			continue
		}
		attrs := nlsock.Attributes(a.Body[unix.SizeofIfAddrmsg:])
		own := attrs[unix.IFA_LOCAL] // of a point-to-point interface the other is its peer's
		if own == nil {
			own = attrs[unix.IFA_ADDRESS]
		}
		if ip, ok := netip.AddrFromSlice(own); ok {
			all = append(all, ip.Unmap())
		}
	}
	return all, nil
}

// Addrs lists every address of a namespace, loopback's too.
func Addrs(ns *netns.Namespace) ([]Address, error) {
	var all []Address
	err := in(ns, func(h *netlink.Handle) error {
		names, err := linkNames(h)
		if err != nil {
			return err
		}
		addrs, err := h.AddrList(nil, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		for _, a := range addrs {
			ip, ok := netip.AddrFromSlice(a.IP)
			if !ok {
				continue // not an internet address
			}
			ones, _ := a.Mask.Size()
			all = append(all, Address{Link: names[a.LinkIndex], Prefix: netip.PrefixFrom(ip.Unmap(), ones)})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	return all, nil
}
