package sock

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/linux/netns"
)

// Listeners lists the sockets that listen on TCP ports in ns, by port, as their inodes.
func Listeners(ns *netns.Namespace, ports ...uint16) (map[uint16][]uint64, error) {
	all := map[uint16][]uint64{}
	err := netns.Do(ns, func() error {
		for _, name := range []string{"/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"} {
			f, err := os.Open(name)
			if errors.Is(err, os.ErrNotExist) {
				continue // a kernel without IPv6
			}
			if err != nil {
				return err
			}
			err = listeners(f, ports, all)
			_ = f.Close() // only read
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list listening sockets: %w", err)
	}
	return all, nil
}

// listening is the state of a listener in proc_net_tcp(5).
const listening = "0A"

// listeners reads the inodes of listeners. The kernel lists them before all other sockets.
func listeners(r io.Reader, ports []uint16, into map[uint16][]uint64) error {
	s := bufio.NewScanner(r)
	s.Scan() // the titles
	for s.Scan() {
		w := strings.Fields(s.Text())
		if len(w) < 10 || w[3] != listening {
			return nil
		}
		_, hex, _ := strings.Cut(w[1], ":")
		port, err := strconv.ParseUint(hex, 16, 16)
		if err != nil {
			return err
		}
		inode, err := strconv.ParseUint(w[9], 10, 64)
		if err != nil {
			return err
		}
		if slices.Contains(ports, uint16(port)) {
			into[uint16(port)] = append(into[uint16(port)], inode)
		}
	}
	return s.Err()
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
