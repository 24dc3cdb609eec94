package redirect

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/ambit-mesh/ambit/linux/link"
	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/linux/tcp"
	"github.com/ambit-mesh/ambit/mesh"
)

// CutPast ends the connections of a captured pod that go past the proxy: they are from before the rules. Their programs and
// the other ends hear of it at once, and what they open next is captured. inboundToo is false for a pod whose inbound
// connections are not captured. Connections of the node itself, such as probes, go on.
// What is only just in flight gets the time to end by itself.
func CutPast(ns *netns.Namespace, inboundToo bool) (ended []tcp.Conn, err error) {
	if ended, err = pastOf(ns, inboundToo); err != nil || len(ended) == 0 {
		return nil, err
	}
	time.Sleep(settle)
	if ended, err = pastOf(ns, inboundToo); err != nil {
		return nil, err
	}
	return ended, end(ns, ended)
}

// settle is longer than a request takes that was sent just before the rules came, and shorter than anybody who labels a pod
// notices.
const settle = 10 * time.Millisecond

func pastOf(ns *netns.Namespace, inboundToo bool) (past []tcp.Conn, err error) {
	e, all, err := look(ns)
	for _, c := range all {
		if e.past(c, inboundToo) {
			past = append(past, c)
		}
	}
	return past, err
}

// CutCaptured ends the connections that the proxy has in hand for the pod's applications: once the rules are gone, neither they
// nor the proxy would hear of each other again.
func CutCaptured(ns *netns.Namespace) (ended []tcp.Conn, err error) {
	e, all, err := look(ns)
	if err != nil {
		return nil, err
	}
	for _, c := range all {
		if e.applications(c) && e.captured(c) {
			ended = append(ended, c)
		}
	}
	return ended, end(ns, ended)
}

// ForgetOld drops what the kernel remembers of a pod's own connections before it is captured: while nothing watched, they may
// have ended, and one with the same ports would be taken for its predecessor and pass.
func ForgetOld(ns *netns.Namespace) error {
	if n, err := tcp.Tracked(ns); n == 0 {
		return err
	}
	pod, err := addresses(ns)
	if err != nil {
		return err
	}
	return tcp.Forget(ns, func(from, to netip.AddrPort, _ tcp.Flow) bool { return pod[from.Addr()] || pod[to.Addr()] })
}

// ForgetCaptured drops what the kernel remembers of captured connections once the rules are gone.
func ForgetCaptured(ns *netns.Namespace) error {
	return tcp.Forget(ns, func(_, _ netip.AddrPort, f tcp.Flow) bool {
		return f.Port == mesh.PortOutbound || f.Port == mesh.PortPlaintext || f.Port == mesh.PortDNS || f.Mark&mesh.MarkMask == mesh.ConnMark
	})
}

func end(ns *netns.Namespace, all []tcp.Conn) error {
	var failed []error
	for _, c := range all {
		failed = append(failed, tcp.End(ns, c))
	}
	return errors.Join(failed...)
}

// ends is what tells one kind of connection from another.
type ends struct {
	pod, node map[netip.Addr]bool // addresses
	listening map[uint16]bool     // ports of the pod
	flows     tcp.Flows
}

func look(ns *netns.Namespace) (e ends, conns []tcp.Conn, err error) {
	all, err := tcp.Conns(ns)
	if err != nil || !slices.ContainsFunc(all, func(c tcp.Conn) bool { return c.State != tcp.Listen }) {
		return e, nil, err
	}
	if e.pod, err = addresses(ns); err != nil {
		return e, nil, err
	}
	if e.node, err = addresses(nil); err != nil {
		return e, nil, err
	}
	e.listening = map[uint16]bool{}
	for _, c := range all {
		if c.State == tcp.Listen {
			e.listening[c.Local.Port()] = true
		} else if e.applications(c) {
			conns = append(conns, c)
		}
	}
	if len(conns) == 0 {
		return e, nil, nil // as of most pods; to list the flows is dear
	}
	// After the sockets: what they are then is known.
	e.flows, err = tcp.FlowsOf(ns)
	return e, conns, err
}

func addresses(ns *netns.Namespace) (map[netip.Addr]bool, error) {
	list, err := link.IPs(ns)
	all := map[netip.Addr]bool{}
	for _, ip := range list {
		all[ip] = true
	}
	return all, err
}

// applications tells a connection of a pod's program with somebody outside the pod from the proxy's own.
func (e ends) applications(c tcp.Conn) bool {
	switch c.Local.Port() {
	case mesh.PortOutbound, mesh.PortPlaintext, mesh.PortHBONE, mesh.PortDNS:
		return false
	}
	return c.Mark&mesh.MarkMask != mesh.Mark && !e.pod[c.Remote.Addr()] && !c.Remote.Addr().IsLoopback()
}

// captured reports whether the proxy is at the other end, whatever the program thinks.
func (e ends) captured(c tcp.Conn) bool {
	switch e.flows.Opened(c).Port {
	case mesh.PortOutbound, mesh.PortDNS:
		return true
	}
	return e.flows.Accepted(c).Mark&mesh.MarkMask == mesh.ConnMark
}

// past decides whether a connection should be the proxy's and is not. One that is only being opened is not known to be.
func (e ends) past(c tcp.Conn, inboundToo bool) bool {
	probe := c.Remote.Addr() == netip.MustParseAddr(mesh.ProbeSourceV4) || c.Remote.Addr() == netip.MustParseAddr(mesh.ProbeSourceV6)
	inbound := e.listening[c.Local.Port()]
	return e.applications(c) && !e.captured(c) && c.State != tcp.SynSent && !probe && !e.node[c.Remote.Addr()] && (inboundToo || !inbound)
}
