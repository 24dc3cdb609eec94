package sock

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

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
	f, err := open(ns, to, unix.SOCK_STREAM, func(fd int, v6 bool) error {
		if err := o.apply(fd, v6); err != nil {
			return err
		}
		if from.IsValid() {
			if from.Port() == 0 {
				// Ports are then taken per destination: 28k connections to each instead of in all.
				if err := unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
					return fmt.Errorf("set IP_BIND_ADDRESS_NO_PORT: %w", err)
				}
			}
			if err := unix.Bind(fd, sockaddr(from, v6)); err != nil {
				return fmt.Errorf("bind to %s: %w", from, err)
			}
		}
		err := unix.Connect(fd, sockaddr(to, v6))
		if err != nil && !errors.Is(err, unix.EINPROGRESS) && !errors.Is(err, unix.EINTR) {
			return err
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", to, err)
	}
	if err := connected(ctx, f); err != nil {
		_ = f.Close() // the error that counts is the first
		return nil, fmt.Errorf("connect to %s: %w", to, err)
	}
	c, err := fileAs(f, net.FileConn)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", to, err)
	}
	tcp := c.(*net.TCPConn)
	if err := tcp.SetKeepAliveConfig(KeepAlive()); err != nil {
		_ = tcp.Close()
		return nil, fmt.Errorf("connect to %s: set keepalive: %w", to, err)
	}
	return tcp, nil
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

// connected waits until the kernel has connected the socket or given up, or ctx ends.
func connected(ctx context.Context, f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() {
		_ = f.SetWriteDeadline(time.Unix(1, 0)) // wakes the wait below; on a closed file there is nothing to wake
	})
	defer stop()
	var result error
	err = raw.Write(func(fd uintptr) bool {
		var state int
		if state, result = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); result != nil {
			return true
		}
		if state != 0 {
			result = unix.Errno(state)
			return true
		}
		_, result = unix.Getpeername(int(fd))
		return !errors.Is(result, unix.ENOTCONN) // not yet: wait until writable
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return errors.Join(err, result)
}
