package proxy

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/linux/sock"
	"github.com/ambit-mesh/ambit/mesh"
)

// port is one of the proxy's ports in a pod. The proxies of two ztunnels share it while one takes over from the other:
// no connection finds it closed.
type port struct {
	*net.TCPListener
	number uint16
	inode  uint64
	elders []uint64     // who listened before us
	taken  atomic.Int64 // how many connections
}

// openPort opens a port for both families, or for IPv4 where the kernel has no other. A ztunnel that is there already
// keeps getting all connections until it hands over, which it does when we are ready for them: elders are its listeners.
func openPort(ns *netns.Namespace, number uint16, elders []uint64, log *slog.Logger) (*port, error) {
	o := sock.Options{Mark: mesh.Mark, Transparent: true, ReusePort: true}
	l, err := sock.Listen(ns, netip.AddrPortFrom(netip.IPv6Unspecified(), number), o)
	if err != nil {
		var err4 error
		if l, err4 = sock.Listen(ns, netip.AddrPortFrom(netip.IPv4Unspecified(), number), o); err4 != nil {
			return nil, fmt.Errorf("open the proxy's ports: %w", errors.Join(err, err4))
		}
	}
	p := &port{TCPListener: l, number: number, elders: elders}
	if p.inode, err = sock.Inode(l); err != nil {
		return nil, errors.Join(fmt.Errorf("open the proxy's ports: %w", err), l.Close())
	}
	if len(p.elders) == 1 {
		if err := sock.Steer(l, 0); err != nil {
			log.Warn("connections are not left to the proxy that was there before", "port", number, "error", err)
		}
	}
	return p, nil
}

// AcceptTCP counts what it gives.
func (p *port) AcceptTCP() (*net.TCPConn, error) {
	c, err := p.TCPListener.AcceptTCP()
	if err == nil {
		p.taken.Add(1)
	}
	return c, err
}

// others are the listeners of the port that are not ours.
func (p *port) others(all map[uint16][]uint64) []uint64 {
	return slices.DeleteFunc(slices.Clone(all[p.number]), func(inode uint64) bool { return inode == p.inode })
}

// place is the place of the other listener of two, as sock.Steer counts them: whoever listened before us is first.
func (p *port) place(other uint64) uint32 {
	if slices.Contains(p.elders, other) {
		return 0
	}
	return 1
}

// Times of a hand-over.
const (
	// lookEvery is how often a proxy that shall end looks for its successor.
	lookEvery = 100 * time.Millisecond
	// quiet is how long no connection must have come to us before we stop listening: by then the handshakes that had
	// begun with us are over, also those that lost a packet.
	quiet = time.Second
	// restless bounds the wait for quiet.
	restless = 5 * time.Second
)
