package proxy

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"syscall"

	"github.com/ambit-mesh/ambit/linux/sock"
	"github.com/ambit-mesh/ambit/mesh"
)

// Ports that we use in the client's name. A client has ports of its own to the same address, which its kernel chooses
// above these; if we took one of those, connection tracking would take the two connections for one, and the client
// would hear nothing any more. So we choose from below, and none that a client has open.
const (
	appPortMin = 1024
	appPortMax = 32767
	appTries   = 16
)

// dialApp connects to the application from the client's own address. The mark lets the pod's rules lead its answers
// back here.
func (p *Proxy) dialApp(ctx context.Context, from netip.Addr, to netip.AddrPort) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	o := sock.Options{Mark: mesh.Mark, Transparent: true, FreeBind: true, ReuseAddr: true}
	if from.Is4() != to.Addr().Is4() || from.IsLoopback() || to.Addr().IsLoopback() {
		c, err := sock.Dial(ctx, p.pod.NS, netip.AddrPort{}, to, o)
		return c, asConnect(err)
	}
	for range appTries {
		source := netip.AddrPortFrom(from, appPortMin+uint16(rand.IntN(appPortMax-appPortMin+1)))
		if p.open.uses(source) {
			continue
		}
		c, err := sock.Dial(ctx, p.pod.NS, source, to, o)
		if err == nil {
			return c, nil
		}
		if !taken(err) {
			return nil, errConnect(err)
		}
	}
	c, err := sock.Dial(ctx, p.pod.NS, netip.AddrPortFrom(from, 0), to, o) // so many are in use that the kernel may choose
	return c, asConnect(err)
}

// taken reports that another socket has the port.
func taken(err error) bool {
	return errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EADDRNOTAVAIL)
}

func asConnect(err error) error {
	if err == nil {
		return nil
	}
	return errConnect(err)
}
