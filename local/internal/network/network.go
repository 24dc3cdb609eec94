// Package network builds the machines of a local cluster: network namespaces on a bridge, and addresses for pods.
package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/ambit-mesh/ambit/linux/link"
	"github.com/ambit-mesh/ambit/linux/netns"
)

// Bridge joins the nodes. The sandbox itself has the first address on it.
const Bridge = "br-ambit"

// Uplink is a node's own interface; its other end, a port of the bridge, is named by the node.
const Uplink = "eth0"

// Config says what to build.
type Config struct {
	// Nodes are the names of the nodes, in order.
	Nodes []string
	// Family says which addresses everything gets. Default: IPv4.
	Family Family
}

// Network is the built network.
type Network struct {
	nodes  []*Node
	byName map[string]*Node
}

// Node is one machine of the cluster.
type Node struct {
	Name  string
	Index int // from 1; the third number of its pods' addresses
	NS    *netns.Namespace
	// Addrs are its addresses on the bridge, one of each family, IPv4 first.
	Addrs []netip.Addr
	// Pods are the prefixes of its pods, IPv4 first, one for each of Addrs.
	Pods []netip.Prefix
	ipam *IPAM
}

// plan is the addressing of a cluster; pure.
type plan struct {
	bridge []netip.Prefix
	nodes  []*Node
}

func planOf(c Config) (plan, error) {
	p := plan{bridge: choose(c.Family, netip.MustParsePrefix("10.89.0.1/24"), netip.MustParsePrefix("fd00:10:89::1/64"))}
	if len(c.Nodes) > 200 {
		return p, fmt.Errorf("%d nodes: a local cluster has room for 200", len(c.Nodes))
	}
	for i, name := range c.Nodes {
		n := i + 1
		node := &Node{
			Name: name, Index: n,
			Addrs: choose(c.Family, netip.AddrFrom4([4]byte{10, 89, 0, byte(10 + n)}), netip.MustParseAddr(fmt.Sprintf("fd00:10:89::%x", 10+n))),
			Pods: choose(c.Family,
				netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(n), 0}), 24), netip.MustParsePrefix(fmt.Sprintf("fd00:10:244:%x::/64", n))),
		}
		node.ipam = NewIPAM(node.Pods)
		p.nodes = append(p.nodes, node)
	}
	return p, nil
}

// Build makes the network in the process's own network namespace.
func Build(c Config) (*Network, error) {
	p, err := planOf(c)
	if err != nil {
		return nil, err
	}
	if err := link.AddBridge(nil, Bridge, p.bridge...); err != nil {
		return nil, err
	}
	w := &Network{byName: map[string]*Node{}}
	for _, n := range p.nodes {
		if err := n.build(c, p); err != nil {
			return nil, errors.Join(fmt.Errorf("build node %s: %w", n.Name, err), w.Close())
		}
		w.nodes = append(w.nodes, n)
		w.byName[n.Name] = n
	}
	return w, nil
}

// port is the node's end on the bridge. Interface names have at most 15 characters.
func (n *Node) port() string { return fmt.Sprintf("node-%d", n.Index) }

func (n *Node) build(c Config, p plan) error {
	ns, err := netns.New()
	if err != nil {
		return err
	}
	n.NS = ns
	if err := link.Up(ns, "lo"); err != nil {
		return err
	}
	if err := settings(ns, c.Family.V6()); err != nil {
		return err
	}
	if err := link.AddVeth(link.Veth{Name: n.port(), Bridge: Bridge, Peer: Uplink, PeerNS: ns}); err != nil {
		return err
	}
	if err := link.Up(nil, n.port()); err != nil {
		return err
	}
	if err := link.Up(ns, Uplink); err != nil {
		return err
	}
	for i, a := range n.Addrs {
		if err := link.AddAddr(ns, Uplink, netip.PrefixFrom(a, p.bridge[i].Bits())); err != nil {
			return err
		}
		if err := link.AddRoute(ns, link.Route{To: everything(a), Via: p.bridge[i].Addr(), Link: Uplink}); err != nil {
			return err
		}
		if err := link.AddRoute(nil, link.Route{To: n.Pods[i], Via: a, Link: Bridge}); err != nil {
			return err
		}
		for _, other := range p.nodes {
			if other == n {
				continue
			}
			if err := link.AddRoute(ns, link.Route{To: other.Pods[i], Via: other.Addrs[i], Link: Uplink}); err != nil {
				return err
			}
		}
	}
	return nil
}

// settings make a namespace a router.
func settings(ns *netns.Namespace, v6 bool) error {
	all := map[string]string{
		"ipv4/ip_forward":             "1",
		"ipv4/conf/all/rp_filter":     "0",
		"ipv4/conf/default/rp_filter": "0",
	}
	if v6 {
		all["ipv6/conf/all/forwarding"] = "1"
	}
	for key, value := range all {
		if err := link.SetSysctl(ns, key, value); err != nil {
			return err
		}
	}
	return nil
}

func everything(a netip.Addr) netip.Prefix {
	if a.Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

// Plug puts the node's cable to the other nodes in, or pulls it out. What the node has of addresses and routes stays.
func (n *Node) Plug(in bool) error {
	if in {
		return link.Up(nil, n.port())
	}
	return link.Down(nil, n.port())
}

// Nodes are all nodes in order.
func (w *Network) Nodes() []*Node { return w.nodes }

// Node is the node of that name.
func (w *Network) Node(name string) (*Node, bool) {
	n, ok := w.byName[name]
	return n, ok
}

// Close lets the nodes' namespaces go. Pods still in theirs keep running.
func (w *Network) Close() error {
	var errs []error
	for _, n := range w.nodes {
		errs = append(errs, n.NS.Close(), link.Delete(nil, n.port()))
	}
	return errors.Join(append(errs, link.Delete(nil, Bridge))...)
}

// IPAM gives out the addresses of the node's pods.
func (n *Node) IPAM() *IPAM { return n.ipam }

// Dial connects from the node's namespace, as kubelet's probes do.
func (n *Node) Dial(ctx context.Context, network, addr string) (c net.Conn, err error) {
	err = netns.Do(n.NS, func() error {
		// A literal address is dialled on this thread; a name would be looked up on others, outside.
		ap, perr := netip.ParseAddrPort(addr)
		if perr != nil {
			return fmt.Errorf("dial %s from node %s: %w", addr, n.Name, perr)
		}
		var d net.Dialer
		c, err = d.DialContext(ctx, network, ap.String())
		return err
	})
	return c, err
}

// Listen opens a listener in the node's namespace.
func (n *Node) Listen(ctx context.Context, network, addr string) (l net.Listener, err error) {
	err = netns.Do(n.NS, func() error {
		var c net.ListenConfig
		l, err = c.Listen(ctx, network, addr)
		return err
	})
	return l, err
}
