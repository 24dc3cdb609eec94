// Package sock opens sockets inside network namespaces.
package sock

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Options are what the kernel is told about a socket before it is bound. The zero value is a plain socket.
type Options struct {
	Mark        uint32 // SO_MARK; 0 sets none
	Transparent bool   // may bind to, and accept connections for, addresses that are not the namespace's own
	FreeBind    bool   // may bind to an address that is not there yet
	ReusePort   bool   // several listeners share the port, as during a hand-over
	V6Only      bool   // an IPv6 listener refuses IPv4
	ReuseAddr   bool   // several connections may leave from one address and port, to different ones; listeners always do
	Interface   string // SO_BINDTODEVICE
}

// KeepAlive is how long-lived connections are probed: after 180 s of silence, every 180 s, 9 times.
func KeepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: 180 * time.Second, Interval: 180 * time.Second, Count: 9}
}

type option struct {
	level, name, value int
	what               string
}

func (o Options) list(v6 bool) []option {
	var l []option
	if v6 {
		l = append(l, option{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, btoi(o.V6Only), "IPV6_V6ONLY"})
	}
	if o.Mark != 0 {
		l = append(l, option{unix.SOL_SOCKET, unix.SO_MARK, int(o.Mark), "SO_MARK"})
	}
	if o.ReuseAddr {
		l = append(l, option{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1, "SO_REUSEADDR"})
	}
	if o.ReusePort {
		l = append(l, option{unix.SOL_SOCKET, unix.SO_REUSEPORT, 1, "SO_REUSEPORT"})
	}
	if o.Transparent {
		l = append(l, option{unix.SOL_IP, unix.IP_TRANSPARENT, 1, "IP_TRANSPARENT"})
		if v6 {
			l = append(l, option{unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1, "IPV6_TRANSPARENT"})
		}
	}
	if o.FreeBind {
		l = append(l, option{unix.SOL_IP, unix.IP_FREEBIND, 1, "IP_FREEBIND"})
		if v6 {
			l = append(l, option{unix.SOL_IPV6, unix.IPV6_FREEBIND, 1, "IPV6_FREEBIND"})
		}
	}
	return l
}

func (o Options) apply(fd int, v6 bool) error {
	for _, opt := range o.list(v6) {
		if err := unix.SetsockoptInt(fd, opt.level, opt.name, opt.value); err != nil {
			return fmt.Errorf("set %s: %w", opt.what, err)
		}
	}
	if o.Interface != "" {
		if err := unix.BindToDevice(fd, o.Interface); err != nil {
			return fmt.Errorf("bind to interface %s: %w", o.Interface, err)
		}
	}
	return nil
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// inFamily is an address as a socket of a family takes it: one of IPv4 is mapped on a socket of IPv6.
func inFamily(a netip.AddrPort, v6 bool) netip.AddrPort {
	if v6 {
		return a
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// sockaddr is the kernel's form of an address, in the family of the socket: an IPv4 address on an IPv6 socket is mapped.
func sockaddr(a netip.AddrPort, v6 bool) unix.Sockaddr {
	if !v6 {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().Unmap().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16(), ZoneId: zone(a.Addr())}
}

func zone(a netip.Addr) uint32 {
	if a.Zone() == "" {
		return 0
	}
	i, err := net.InterfaceByName(a.Zone())
	if err != nil {
		return 0 // the kernel refuses a link-local address without a zone, naming the connection
	}
	return uint32(i.Index)
}
