// Package link makes interfaces, addresses, routes and policy rules in network namespaces, over netlink.
//
// Every function takes the namespace first; nil is the process's own. Making what is already there
// and deleting what is not there succeed, so that a step can be repeated after a crash.
package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/linux/netns"
)

// in runs f with a netlink handle of the namespace.
func in(ns *netns.Namespace, f func(h *netlink.Handle) error) error {
	var h *netlink.Handle
	err := netns.Do(ns, func() (err error) {
		h, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer h.Close()
	return f(h)
}

func onLink(ns *netns.Namespace, what, name string, f func(h *netlink.Handle, l netlink.Link) error) error {
	err := in(ns, func(h *netlink.Handle) error {
		l, err := h.LinkByName(name)
		if err != nil {
			return err
		}
		return f(h, l)
	})
	if err != nil {
		return fmt.Errorf("%s %s: %w", what, name, err)
	}
	return nil
}

// linkNames are the names of the interfaces, by index.
func linkNames(h *netlink.Handle) (map[int]string, error) {
	links, err := h.LinkList()
	if err != nil {
		return nil, err
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	return names, nil
}

// Up brings an interface up.
func Up(ns *netns.Namespace, name string) error {
	return onLink(ns, "bring up interface", name, func(h *netlink.Handle, l netlink.Link) error { return h.LinkSetUp(l) })
}

// Down takes an interface down.
func Down(ns *netns.Namespace, name string) error {
	return onLink(ns, "take down interface", name, func(h *netlink.Handle, l netlink.Link) error { return h.LinkSetDown(l) })
}

// Exists reports whether the interface is there.
func Exists(ns *netns.Namespace, name string) (bool, error) {
	err := onLink(ns, "find interface", name, func(*netlink.Handle, netlink.Link) error { return nil })
	if missing(err) {
		return false, nil
	}
	return err == nil, err
}

// Delete removes an interface; a veth takes its peer with it.
func Delete(ns *netns.Namespace, name string) error {
	err := onLink(ns, "delete interface", name, func(h *netlink.Handle, l netlink.Link) error { return h.LinkDel(l) })
	if missing(err) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

func missing(err error) bool {
	_, is := errors.AsType[netlink.LinkNotFoundError](err)
	return is
}

// AddBridge makes a bridge, gives it its addresses and brings it up.
func AddBridge(ns *netns.Namespace, name string, addrs ...netip.Prefix) error {
	err := in(ns, func(h *netlink.Handle) error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		return h.LinkAdd(&netlink.Bridge{LinkAttrs: attrs})
	})
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make bridge %s: %w", name, err)
	}
	for _, a := range addrs {
		if err := AddAddr(ns, name, a); err != nil {
			return err
		}
	}
	return Up(ns, name)
}

// Veth is a pair of interfaces joined back to back. Both ends are left down.
type Veth struct {
	Name   string           // the end in NS
	NS     *netns.Namespace // nil: the process's own
	Peer   string           // the end in PeerNS
	PeerNS *netns.Namespace // nil: same as NS
	Bridge string           // in NS, that Name joins; "" for none
	MTU    int              // 0: the kernel's 1500
}

// AddVeth makes the pair. Unlike others it fails if an end is there already, because the other end is then unknown.
func AddVeth(v Veth) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = v.Name, v.MTU
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: v.Peer}
	if v.PeerNS != nil {
		pair.PeerNamespace = netlink.NsFd(v.PeerNS.File().Fd())
	}
	if err := in(v.NS, func(h *netlink.Handle) error { return h.LinkAdd(pair) }); err != nil {
		return fmt.Errorf("make veth %s-%s: %w", v.Name, v.Peer, err)
	}
	if v.Bridge == "" {
		return nil
	}
	return SetBridge(v.NS, v.Name, v.Bridge)
}

// SetBridge makes an interface a port of a bridge.
func SetBridge(ns *netns.Namespace, name, bridge string) error {
	return onLink(ns, "add to bridge "+bridge+" interface", name, func(h *netlink.Handle, l netlink.Link) error {
		b, err := h.LinkByName(bridge)
		if err != nil {
			return err
		}
		return h.LinkSetMaster(l, b)
	})
}

// Hairpin lets a bridge send a frame back out of the port it came from, as a pod that reaches itself through a Service needs.
func Hairpin(ns *netns.Namespace, name string, on bool) error {
	return onLink(ns, "set hairpin of interface", name, func(h *netlink.Handle, l netlink.Link) error {
		return h.LinkSetHairpin(l, on)
	})
}

// HardwareAddr is the interface's MAC.
func HardwareAddr(ns *netns.Namespace, name string) (mac net.HardwareAddr, err error) {
	err = onLink(ns, "read address of interface", name, func(_ *netlink.Handle, l netlink.Link) error {
		mac = l.Attrs().HardwareAddr
		return nil
	})
	return mac, err
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
