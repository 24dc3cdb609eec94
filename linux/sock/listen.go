package sock

import (
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/linux/netns"
)

// Listen opens a TCP listener inside ns. The address :: accepts IPv4 as well unless V6Only.
// Accepted connections carry the runtime's default keepalive; use KeepAlive for the mesh's own.
func Listen(ns *netns.Namespace, addr netip.AddrPort, o Options) (*net.TCPListener, error) {
	f, err := open(ns, addr, unix.SOCK_STREAM, func(fd int, v6 bool) error {
		// A listener that restarts finds its port although old connections still linger.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return fmt.Errorf("set SO_REUSEADDR: %w", err)
		}
		if err := o.apply(fd, v6); err != nil {
			return err
		}
		if err := unix.Bind(fd, sockaddr(addr, v6)); err != nil {
			return fmt.Errorf("bind: %w", err)
		}
		return unix.Listen(fd, unix.SOMAXCONN)
	})
	if err != nil {
		return nil, fmt.Errorf("listen on tcp %s: %w", addr, err)
	}
	l, err := fileAs(f, net.FileListener)
	if err != nil {
		return nil, fmt.Errorf("listen on tcp %s: %w", addr, err)
	}
	return l.(*net.TCPListener), nil
}

// ListenUDP opens a UDP socket inside ns.
func ListenUDP(ns *netns.Namespace, addr netip.AddrPort, o Options) (*net.UDPConn, error) {
	f, err := open(ns, addr, unix.SOCK_DGRAM, func(fd int, v6 bool) error {
		if err := o.apply(fd, v6); err != nil {
			return err
		}
		if err := unix.Bind(fd, sockaddr(addr, v6)); err != nil {
			return fmt.Errorf("bind: %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listen on udp %s: %w", addr, err)
	}
	c, err := fileAs(f, net.FilePacketConn)
	if err != nil {
		return nil, fmt.Errorf("listen on udp %s: %w", addr, err)
	}
	return c.(*net.UDPConn), nil
}

func isV6(a netip.Addr) bool { return a.Is6() && !a.Is4In6() }

// open makes a socket on a thread inside ns, where it stays whoever uses it later.
func open(ns *netns.Namespace, addr netip.AddrPort, kind int, f func(fd int, v6 bool) error) (*os.File, error) {
	v6 := isV6(addr.Addr())
	family := unix.AF_INET
	if v6 {
		family = unix.AF_INET6
	}
	var file *os.File
	err := netns.Do(ns, func() error {
		fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("socket: %w", err)
		}
		if err := f(fd, v6); err != nil {
			_ = unix.Close(fd) // the error that counts is the first
			return err
		}
		file = os.NewFile(uintptr(fd), "socket")
		return nil
	})
	return file, err
}

// fileAs turns the descriptor into one of package net's types, which keeps a descriptor of its own.
func fileAs[T any](f *os.File, as func(*os.File) (T, error)) (T, error) {
	v, err := as(f)
	_ = f.Close() // a duplicate by now, or useless
	return v, err
}
