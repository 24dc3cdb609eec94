// Package tcp lists and ends the TCP connections of a network namespace, over netlink.
//
// Every function takes the namespace first; nil is the process's own.
package tcp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/linux/nlsock"
)

// Conn is a socket that has, or had until lately, another end, or that waits for one.
type Conn struct {
	Local, Remote netip.AddrPort
	Mark          uint32 // SO_MARK
	State         State

	family byte
	id     []byte // the kernel's, as it gave it
}

// State of a socket, the kernel's numbers.
type State uint8

// States that a decision depends on.
const (
	Established State = 1
	SynSent     State = 2
	synRecv     State = 3
	finWait1    State = 4
	finWait2    State = 5
	closeWait   State = 8
	lastAck     State = 9
	Listen      State = 10
	closing     State = 11
	newSynRecv  State = 12
)

// Of linux/inet_diag.h and linux/sock_diag.h.
const (
	idLen    = nlsock.InetDiagID
	msgLen   = nlsock.InetDiagMsg
	markAttr = 15 // INET_DIAG_MARK
	destroy  = 21 // SOCK_DESTROY
)

// Conns lists the connections of both families, the proxy's and everybody's.
func Conns(ns *netns.Namespace) ([]Conn, error) {
	var states uint32
	for _, s := range []State{Established, SynSent, synRecv, finWait1, finWait2, closeWait, lastAck, Listen, closing, newSynRecv} {
		states |= 1 << s
	}
	answers, err := nlsock.TCP(ns, states)
	if err != nil {
		return nil, fmt.Errorf("list TCP connections: %w", err)
	}
	var all []Conn
	for _, a := range answers {
		if c, ok := parse(a); ok {
			all = append(all, c)
		}
	}
	return all, nil
}

func parse(m []byte) (Conn, bool) {
	if len(m) < msgLen {
		return Conn{}, false
	}
	id := m[4 : 4+idLen]
	c := Conn{family: m[0], State: State(m[1]), id: append([]byte(nil), id...)}
	addr := func(b []byte) netip.Addr {
		if c.family == unix.AF_INET {
			return netip.AddrFrom4([4]byte(b[:4]))
		}
		return netip.AddrFrom16([16]byte(b)).Unmap()
	}
	c.Local = netip.AddrPortFrom(addr(id[4:20]), binary.BigEndian.Uint16(id))
	c.Remote = netip.AddrPortFrom(addr(id[20:36]), binary.BigEndian.Uint16(id[2:]))
	for b := m[msgLen:]; len(b) >= unix.SizeofRtAttr; {
		n, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
		if n < unix.SizeofRtAttr || n > len(b) {
			break
		}
		if kind == markAttr && n >= unix.SizeofRtAttr+4 {
			c.Mark = binary.NativeEndian.Uint32(b[unix.SizeofRtAttr:])
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	return c, true
}

// End ends a connection at once: its program gets an error, and its other end a reset. One that has ended is no error.
func End(ns *netns.Namespace, c Conn) error {
	var m nlsock.Messages
	m.Begin(destroy, unix.NLM_F_ACK, nlsock.InetDiagRequest(c.family, 1<<c.State, c.id)...)
	err := nlsock.With(ns, unix.NETLINK_INET_DIAG, func(s *nlsock.Socket) error {
		failed, err := s.Do(&m)
		return errors.Join(append(failed, err)...)
	})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("end connection %s to %s: %w", c.Local, c.Remote, err)
	}
	return nil
}

// Flow is what the packet filter of a namespace knows of a connection.
type Flow struct {
	Port uint16 // of the namespace that the connection is sent to instead of where it wanted to; 0 if it is not
	Mark uint32 // ct mark
}

// Flows are the tracked connections, by who opened them and where they wanted to go.
type Flows map[[2]netip.AddrPort]Flow

// FlowsOf lists them.
func FlowsOf(ns *netns.Namespace) (Flows, error) {
	all := Flows{}
	if n, err := Tracked(ns); n == 0 {
		return all, err
	}
	err := netns.Do(ns, func() error {
		for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
			flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, family)
			if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
				return err
			}
			for _, f := range flows {
				if from, to, flow, ok := flowOf(f); ok {
					all[[2]netip.AddrPort{from, to}] = flow
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list tracked connections: %w", err)
	}
	return all, nil
}

// Opened is a connection that this end opened.
func (f Flows) Opened(c Conn) Flow { return f[[2]netip.AddrPort{c.Local, c.Remote}] }

// Accepted is a connection that the other end opened.
func (f Flows) Accepted(c Conn) Flow { return f[[2]netip.AddrPort{c.Remote, c.Local}] }

// Forget drops what the packet filter knows of connections, those that which chooses: their next segment is judged anew.
func Forget(ns *netns.Namespace, which func(from, to netip.AddrPort, f Flow) bool) error {
	if n, err := Tracked(ns); n == 0 {
		return err
	}
	err := netns.Do(ns, func() error {
		for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
			if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, filter(which)); err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("forget tracked connections: %w", err)
	}
	return nil
}

// filter is netlink's way to choose flows.
type filter func(from, to netip.AddrPort, f Flow) bool

// MatchConntrackFlow is called by netlink.
func (which filter) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	from, to, flow, ok := flowOf(f)
	return ok && which(from, to, flow)
}

func flowOf(f *netlink.ConntrackFlow) (from, to netip.AddrPort, flow Flow, ok bool) {
	src, ok1 := netip.AddrFromSlice(f.Forward.SrcIP)
	dst, ok2 := netip.AddrFromSlice(f.Forward.DstIP)
	if !ok1 || !ok2 || f.Forward.Protocol != unix.IPPROTO_TCP {
		return from, to, flow, false
	}
	flow.Mark = f.Mark
	if f.Reverse.SrcPort != f.Forward.DstPort {
		flow.Port = f.Reverse.SrcPort
	}
	return netip.AddrPortFrom(src.Unmap(), f.Forward.SrcPort), netip.AddrPortFrom(dst.Unmap(), f.Forward.DstPort), flow, true
}
