package proxy

import (
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"syscall"

	"github.com/ambit-mesh/ambit/hbone"
	"github.com/ambit-mesh/ambit/linux/sock"
	"github.com/ambit-mesh/ambit/mesh"
)

// Source ports of tunnels that a proxy opens to its own pod: a pod may be chosen as the endpoint of a service that it
// calls. They lie above those that the kernel gives out by default. From the pod's address and any other port it is the
// application that connects to its own tunnel port, where it has no business. One that chooses such a port on purpose
// has no certificate, so it wins a handshake that fails.
const (
	selfPortMin = 61000
	selfPortMax = 65000
	selfTries   = 16
)

// dialHop opens the socket of a tunnel from the pod's own address; the mark keeps it from being captured again.
func (p *Proxy) dialHop(ctx context.Context, hop hbone.Hop) (net.Conn, error) {
	o := sock.Options{Mark: mesh.Mark}
	if hop.Addr.Addr() != hop.From {
		return asConn(sock.Dial(ctx, p.pod.NS, netip.AddrPortFrom(hop.From, 0), hop.Addr, o))
	}
	err := error(syscall.EADDRINUSE)
	for range selfTries {
		port := selfPortMin + uint16(rand.IntN(selfPortMax-selfPortMin))
		var c *net.TCPConn
		if c, err = sock.Dial(ctx, p.pod.NS, netip.AddrPortFrom(hop.From, port), hop.Addr, o); err == nil {
			return c, nil
		}
		if !taken(err) {
			break
		}
	}
	return nil, err
}

func asConn(c *net.TCPConn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	return c, nil
}

// outsiders accepts connections of other machines, and those that a proxy of the pod opened to it.
type outsiders struct{ *port }

func (l outsiders) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptTCP()
		if err != nil {
			return nil, err
		}
		if inside(addrOf(c.LocalAddr()), addrOf(c.RemoteAddr())) {
			_ = sock.Reset(c) // refused either way
			continue
		}
		if err := c.SetKeepAliveConfig(sock.KeepAlive()); err != nil {
			_ = c.Close() // it is gone already
			continue
		}
		return c, nil
	}
}

// inside tells a connection of the pod's own application.
func inside(local, remote netip.AddrPort) bool {
	if local.Addr().IsLoopback() || remote.Addr().IsLoopback() {
		return true
	}
	return local.Addr() == remote.Addr() && (remote.Port() < selfPortMin || remote.Port() >= selfPortMax)
}
