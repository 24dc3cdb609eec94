package proxy

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"

	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/telemetry"
	"github.com/ambit-mesh/ambit/ztunnel/internal/state"
)

// target is what an authority means in the pod.
type target struct {
	app     netip.AddrPort // the application's own, on which policies decide
	dial    netip.AddrPort // where it listens
	service *state.Service // that was named; nil if none was
	proxied netip.AddrPort // where the client wanted to go, if the application wants to be told in a PROXY header
}

// target says which of the pod's ports an authority means. Anything that is not the pod's own is refused before any
// dial: this is no relay. Two kinds of pod are asked for other addresses than theirs: the waypoint of what is addressed,
// and one that takes all connections at one port and is told what they were for.
func (p *Proxy) target(self *state.Workload, local netip.AddrPort, authority string) (target, *refusal) {
	asked, svc, no := p.asked(self, authority)
	if no != nil {
		return target{}, no
	}
	t := target{app: asked, service: svc}
	if !asked.Addr().IsValid() {
		t.app = netip.AddrPortFrom(local.Addr(), asked.Port())
	}
	if !self.Has(t.app.Addr()) {
		if self.AppTunnel == nil && !p.State.IsWaypointFor(self, t.app.Addr()) {
			return target{}, bad("ip mismatch: %s != %s", local.Addr(), t.app.Addr())
		}
		t.app = netip.AddrPortFrom(local.Addr(), t.app.Port())
	}
	if proxyPort(t.app.Port()) {
		return target{}, &refusal{http.StatusBadRequest, errRecursive}
	}
	if self.AppTunnel == nil {
		t.dial = t.app
		return t, nil
	}
	return p.tunnelled(self, t, asked)
}

// tunnelled leads to the port at which an application takes all connections.
func (p *Proxy) tunnelled(self *state.Workload, t target, asked netip.AddrPort) (target, *refusal) {
	if port := self.AppTunnel.Port; port != 0 {
		t.app = netip.AddrPortFrom(t.app.Addr(), port)
	}
	if proxyPort(t.app.Port()) {
		return target{}, &refusal{http.StatusBadRequest, errRecursive}
	}
	t.dial = t.app
	if !self.AppTunnel.Proxy {
		return t, nil
	}
	// Such an application believes the header, so it listens where nobody but its proxy can reach it.
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if t.app.Addr().Is6() {
		loopback = netip.IPv6Loopback()
	}
	t.dial = netip.AddrPortFrom(loopback, t.app.Port())
	t.proxied = asked
	if t.service != nil {
		a, ok := serviceAddress(t.service)
		if !ok {
			return target{}, &refusal{http.StatusServiceUnavailable, &failure{flag: telemetry.ConnectFailed, text: fmt.Sprintf("service %s has no address", t.service.Key())}}
		}
		t.proxied = netip.AddrPortFrom(a, asked.Port())
	}
	return t, nil
}

// serviceAddress is a service's address, of IPv4 if it has one.
func serviceAddress(svc *state.Service) (a netip.Addr, ok bool) {
	for _, v := range svc.Addresses {
		if !ok || a.Is6() && v.Block.Addr().Is4() {
			a, ok = v.Block.Addr(), true
		}
	}
	return a, ok
}

// asked reads an authority: an address and a port, or a port alone for a service that was named.
func (p *Proxy) asked(self *state.Workload, authority string) (netip.AddrPort, *state.Service, *refusal) {
	if to, err := netip.ParseAddrPort(authority); err == nil {
		return netip.AddrPortFrom(to.Addr().Unmap(), to.Port()), nil, nil
	}
	var none netip.AddrPort
	host, portText, err := net.SplitHostPort(authority)
	if err != nil {
		return none, nil, bad("authority %q: %v", authority, err)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return none, nil, bad("authority %q: %v", authority, err)
	}
	svc := p.State.ServiceOf(host, self.Namespace)
	if svc == nil {
		return none, nil, bad("unknown service: %s", host)
	}
	if !self.Serves(svc) {
		if a, ok := serviceAddress(svc); ok && p.State.IsWaypointFor(self, a) {
			return netip.AddrPortFrom(netip.Addr{}, uint16(port)), svc, nil
		}
		return none, nil, bad("service %s does not select %s", svc.Key(), self.UID)
	}
	to, ok := p.State.Target(self, svc, uint16(port))
	if !ok {
		return none, nil, &refusal{http.StatusServiceUnavailable, &failure{flag: telemetry.ConnectFailed, text: fmt.Sprintf("service %s has no port %d", svc.Key(), port)}}
	}
	return netip.AddrPortFrom(netip.Addr{}, to), svc, nil
}

func bad(format string, args ...any) *refusal {
	return &refusal{http.StatusBadRequest, &failure{flag: telemetry.ConnectFailed, text: fmt.Sprintf(format, args...)}}
}

// proxyPort reports whether a port belongs to the proxy, so that nothing may be forwarded to it.
func proxyPort(port uint16) bool {
	switch port {
	case mesh.PortOutbound, mesh.PortPlaintext, mesh.PortHBONE, mesh.PortDNS, mesh.PortSOCKS:
		return true
	}
	return false
}
