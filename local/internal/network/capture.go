package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/local/internal/network/wire"
)

// captureBuffer is how much the kernel keeps while the reader is busy.
const captureBuffer = 16 << 20

// Capture reads the TCP segments that nodes put on the bridge, each once, until ctx ends. It runs when it returns; the
// channel is closed at its end.
func Capture(ctx context.Context, w *Network) (<-chan wire.Segment, error) {
	ports := map[int]bool{}
	for _, n := range w.nodes {
		i, err := index(n.port())
		if err != nil {
			return nil, fmt.Errorf("capture: %w", err)
		}
		ports[i] = true
	}
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // in network order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, all)
	if err != nil {
		return nil, fmt.Errorf("capture: open a packet socket: %w", err)
	}
	// A smaller buffer only loses more under load; what is lost is noticed by nobody else.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, captureBuffer)
	f := os.NewFile(uintptr(fd), "packets")
	conn, err := f.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("capture: %w", err), f.Close())
	}
	out := make(chan wire.Segment, 1024)
	go func() {
		defer close(out)
		defer f.Close()
		defer context.AfterFunc(ctx, func() { _ = f.Close() })()
		buf := make([]byte, 256<<10)
		for {
			var n int
			var from unix.Sockaddr
			var got error
			err := conn.Read(func(fd uintptr) bool {
				n, from, got = unix.Recvfrom(int(fd), buf, 0)
				return !errors.Is(got, unix.EAGAIN)
			})
			if err != nil || got != nil {
				return // closed
			}
			ll, ok := from.(*unix.SockaddrLinklayer)
			if !ok || ll.Pkttype == unix.PACKET_OUTGOING || !ports[ll.Ifindex] {
				continue
			}
			if s, ok := wire.Parse(buf[:n]); ok {
				s.Payload = slices.Clone(s.Payload)
				select {
				case out <- s:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return out, nil
}

// index is the kernel's number of an interface of this namespace.
func index(name string) (int, error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return 0, err
	}
	return i.Index, nil
}
