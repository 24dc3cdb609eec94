package sock

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/linux/netns"
)

// Dial connects over TCP from inside ns. A valid from is the source address, its port 0 chosen by the kernel;
// with Transparent it may be any address. No thread waits while the connection is being made.
// The connection has the keepalive of KeepAlive.
func Dial(ctx context.Context, ns *netns.Namespace, from, to netip.AddrPort, o Options) (*net.TCPConn, error) {
	if !to.IsValid() {
		return nil, errors.New("connect: no address")
	}
	v6 := isV6(to.Addr())
	d := net.Dialer{KeepAlive: -1, KeepAliveConfig: KeepAlive()}
	d.SetMultipathTCP(false)
	var wrong error // which step failed before the connection was tried
	network := "tcp4"
	if v6 {
		network = "tcp6"
	}
	if from.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(inFamily(from, v6))
	}
	inside, err := netns.Enter(ns)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", to, err)
	}
	defer inside.Leave()
	// Package net calls this between making the socket and connecting it: the thread need not stay inside. Where no port is
	// left, or it got itself, it makes another socket and calls again; that one would be outside.
	d.Control = func(_, _ string, raw syscall.RawConn) error {
		if !inside.Leave() && ns != nil {
			wrong = unix.EADDRNOTAVAIL
			return wrong
		}
		if err := raw.Control(func(fd uintptr) { wrong = prepare(int(fd), v6, from, o) }); err != nil {
			return err
		}
		return wrong
	}
	c, err := d.DialContext(ctx, network, to.String())
	switch {
	case err == nil:
		return c.(*net.TCPConn), nil
	case wrong != nil:
		err = wrong
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	default:
		err = bare(err)
	}
	return nil, fmt.Errorf("connect to %s: %w", to, err)
}

// prepare sets what must be set before a socket is bound.
func prepare(fd int, v6 bool, from netip.AddrPort, o Options) error {
	if err := o.apply(fd, v6); err != nil {
		return err
	}
	if from.IsValid() && from.Port() == 0 {
		// Ports are then taken per destination: 28k connections to each instead of in all.
		if err := unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
			return fmt.Errorf("set IP_BIND_ADDRESS_NO_PORT: %w", err)
		}
	}
	return nil
}

// bare leaves out what package net says of an error that the caller says better: the addresses.
func bare(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}

// DialUDP opens a UDP socket inside ns that sends to, and receives from, one address only.
func DialUDP(ns *netns.Namespace, to netip.AddrPort, o Options) (*net.UDPConn, error) {
	if !to.IsValid() {
		return nil, errors.New("connect: no address")
	}
	f, err := open(ns, to, unix.SOCK_DGRAM, func(fd int, v6 bool) error {
		if err := o.apply(fd, v6); err != nil {
			return err
		}
		return unix.Connect(fd, sockaddr(to, v6))
	})
	if err != nil {
		return nil, fmt.Errorf("connect to udp %s: %w", to, err)
	}
	c, err := fileAs(f, net.FileConn)
	if err != nil {
		return nil, fmt.Errorf("connect to udp %s: %w", to, err)
	}
	return c.(*net.UDPConn), nil
}
