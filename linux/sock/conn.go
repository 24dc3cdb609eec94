package sock

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/linux/netns"
)

const ip6tSoOriginalDst = 80 // IP6T_SO_ORIGINAL_DST, linux/netfilter_ipv6/ip6_tables.h

// OriginalDst is where a redirected connection was going before the kernel redirected it.
// A connection that was not redirected gives its own local address where the kernel tracks it, else an error.
func OriginalDst(c *net.TCPConn) (netip.AddrPort, error) {
	local, ok := c.LocalAddr().(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("original destination: connection has no local address")
	}
	v4 := local.AddrPort().Addr().Unmap().Is4()
	var to netip.AddrPort
	err := control(c, func(fd int) error {
		var e error
		if v4 {
			to, e = originalV4(fd)
		} else {
			to, e = originalV6(fd)
		}
		return e
	})
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("original destination of %s: %w", c.RemoteAddr(), err)
	}
	return to, nil
}

func originalV4(fd int) (netip.AddrPort, error) {
	var sa unix.RawSockaddrInet4
	if err := getsockopt(fd, unix.SOL_IP, unix.SO_ORIGINAL_DST, unsafe.Pointer(&sa), unsafe.Sizeof(sa)); err != nil {
		return netip.AddrPort{}, err
	}
	return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), networkOrder(sa.Port)), nil
}

func originalV6(fd int) (netip.AddrPort, error) {
	var sa unix.RawSockaddrInet6
	if err := getsockopt(fd, unix.SOL_IPV6, ip6tSoOriginalDst, unsafe.Pointer(&sa), unsafe.Sizeof(sa)); err != nil {
		return netip.AddrPort{}, err
	}
	return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), networkOrder(sa.Port)), nil
}

func getsockopt(fd, level, name int, into unsafe.Pointer, size uintptr) error {
	n := uint32(size)
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(into), uintptr(unsafe.Pointer(&n)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func networkOrder(port uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], port)
	return binary.BigEndian.Uint16(b[:])
}

// Reset closes a connection so that its peer sees a reset and never a clean end.
func Reset(c *net.TCPConn) error {
	if err := c.SetLinger(0); err != nil {
		_ = c.Close() // the error that counts is the first
		return fmt.Errorf("reset connection: %w", err)
	}
	return c.Close()
}

// PeerUID is the user that the process at the other end of a Unix socket had when it connected.
func PeerUID(c syscall.Conn) (uint32, error) {
	var uid uint32
	err := control(c, func(fd int) error {
		cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err == nil {
			uid = cred.Uid
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("credentials of peer: %w", err)
	}
	return uid, nil
}

// PeerNamespace opens the network namespace that the other end of a Unix socket was in when it made its socket: the socket that
// accept gives belongs to that namespace. A process cannot choose it but by entering another namespace, which takes the right to
// administrate that one.
func PeerNamespace(c syscall.Conn) (*netns.Namespace, error) {
	var ns *netns.Namespace
	err := control(c, func(fd int) error {
		const siocgskns = 0x894c // linux/sockios.h; newer than the list of x/sys/unix
		n, err := unix.IoctlRetInt(fd, siocgskns)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(n), "network namespace of peer")
		if ns, err = netns.FromFile(f); err != nil {
			return errors.Join(err, f.Close())
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("network namespace of peer: %w", err)
	}
	return ns, nil
}

func control(c syscall.Conn, f func(fd int) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	if err := raw.Control(func(fd uintptr) { result = f(int(fd)) }); err != nil {
		return err
	}
	return result
}
