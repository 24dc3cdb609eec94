package sock

import (
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/linux/nlsock"
)

// listening is TCP_LISTEN.
const listening = 10

// Listeners lists the sockets that listen on TCP ports in ns, by port, as their inodes. Only listeners are looked at: in a list of all
// sockets, such as /proc/net/tcp, the kernel would go through those of the whole machine.
func Listeners(ns *netns.Namespace, ports ...uint16) (map[uint16][]uint64, error) {
	answers, err := nlsock.TCP(ns, 1<<listening)
	if err != nil {
		return nil, fmt.Errorf("list listening sockets: %w", err)
	}
	all := map[uint16][]uint64{}
	for _, a := range answers { // struct inet_diag_msg
		port, inode := binary.BigEndian.Uint16(a[4:]), binary.NativeEndian.Uint32(a[nlsock.InetDiagMsg-4:])
		if slices.Contains(ports, port) {
			all[port] = append(all[port], uint64(inode))
		}
	}
	return all, nil
}

// Inode is the number by which Listeners names a socket.
func Inode(c syscall.Conn) (uint64, error) {
	var st unix.Stat_t
	if err := control(c, func(fd int) error { return unix.Fstat(fd, &st) }); err != nil {
		return 0, fmt.Errorf("inode of a socket: %w", err)
	}
	return st.Ino, nil
}

// Steer leads all new connections of a port that several listeners share to one of them: 0 is the one that listens
// longest, 1 the next. Those that the kernel has given to another stay there. A number that there is none of leaves
// the choice to the kernel. It needs no privilege.
func Steer(l *net.TCPListener, to uint32) error {
	// A program of classic BPF that returns the same number for each packet. The kernel keeps the listeners of a port in
	// a list, adds to its end, and puts the last one where one has left.
	f := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: to}
	p := unix.SockFprog{Len: 1, Filter: &f}
	err := control(l, func(fd int) error {
		return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &p)
	})
	if err != nil {
		return fmt.Errorf("steer the connections of %s: %w", l.Addr(), err)
	}
	return nil
}
