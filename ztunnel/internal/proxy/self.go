package proxy

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"github.com/ambit-mesh/ambit/hbone"
	"github.com/ambit-mesh/ambit/linux/sock"
	"github.com/ambit-mesh/ambit/mesh"
)

// selfDials are the source ports of tunnels that the proxy opens to its own pod: a pod may be chosen as the endpoint of
// a service that it calls. Any other connection from the pod's address to its tunnel port is the application's, which
// has no business there.
type selfDials struct {
	mu    sync.Mutex // guards ports
	ports map[uint16]bool
}

// Ports for them: above those that the kernel gives out by default.
const (
	selfPortMin = 61000
	selfPortMax = 65000
	selfTries   = 16
)

func (s *selfDials) reserve() (port uint16, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	port = selfPortMin + uint16(rand.IntN(selfPortMax-selfPortMin))
	if s.ports[port] {
		return 0, false
	}
	s.ports[port] = true
	return port, true
}

func (s *selfDials) release(port uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.ports, port)
}

// take reports whether a connection from this port was announced, and ends the announcement.
func (s *selfDials) take(port uint16) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	announced := s.ports[port]
	delete(s.ports, port)
	return announced
}

// dialHop opens the socket of a tunnel from the pod's own address; the mark keeps it from being captured again.
func (p *Proxy) dialHop(ctx context.Context, hop hbone.Hop) (net.Conn, error) {
	o := sock.Options{Mark: mesh.Mark}
	if hop.Addr.Addr() != hop.From {
		return asConn(sock.Dial(ctx, p.pod.NS, netip.AddrPortFrom(hop.From, 0), hop.Addr, o))
	}
	err := error(syscall.EADDRINUSE)
	for range selfTries {
		port, ok := p.selves.reserve()
		if !ok {
			continue
		}
		var c *net.TCPConn
		if c, err = sock.Dial(ctx, p.pod.NS, netip.AddrPortFrom(hop.From, port), hop.Addr, o); err == nil {
			return c, nil
		}
		p.selves.release(port)
		if !errors.Is(err, syscall.EADDRINUSE) && !errors.Is(err, syscall.EADDRNOTAVAIL) {
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

// outsiders accepts connections of other machines, and those that the proxy itself opened to its pod.
type outsiders struct {
	*net.TCPListener
	selves *selfDials
}

func (l outsiders) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptTCP()
		if err != nil {
			return nil, err
		}
		local, remote := addrOf(c.LocalAddr()), addrOf(c.RemoteAddr())
		inside := local.Addr().IsLoopback() || remote.Addr().IsLoopback() || remote.Addr() == local.Addr() && !l.selves.take(remote.Port())
		if inside {
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
