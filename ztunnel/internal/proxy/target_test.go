package proxy_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"

	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/hbone"
	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/linux/sock"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/ztunnel/internal/state"
)

// knocker opens tunnels by hand from a pod without a proxy.
func (w *world) knocker(x, at *pod) func(authority string) (*hbone.Stream, int) {
	d := &hbone.Dialer{Source: w.ca, Roots: w.ca, DialTCP: func(ctx context.Context, h hbone.Hop) (net.Conn, error) {
		return sock.Dial(ctx, x.ns, netip.AddrPort{}, h.Addr, sock.Options{})
	}}
	w.t.Cleanup(func() { d.Close() })
	hop := hbone.Hop{Addr: at.at(mesh.PortHBONE), Own: x.id(), Expect: []identity.ID{at.id()}}
	return func(authority string) (*hbone.Stream, int) {
		w.t.Helper()
		s, err := d.Dial(w.t.Context(), hop, authority, nil)
		if err == nil {
			w.t.Cleanup(func() { s.Close() })
			return s, http.StatusOK
		}
		e, ok := errors.AsType[*hbone.StatusError](err)
		if !ok {
			w.t.Fatalf("CONNECT %s: %v, want an answer", authority, err)
		}
		return nil, e.Code
	}
}

func TestWaypointOfWhatIsAddressedTakesIt(t *testing.T) {
	w := newWorld(t)
	b, wp, x := w.captured("b", "10.0.0.2"), w.captured("wp", "10.0.0.4"), w.outside("x", "10.0.0.3")
	vip := w.service(b, "10.96.0.1")
	app := wp.echo(9080)
	connect := w.knocker(x, wp)
	if _, code := connect(b.at(9080).String()); code != http.StatusBadRequest {
		t.Errorf("a pod that is nobody's waypoint answers %d, want 400", code)
	}
	gateway := &workload.GatewayAddress{Destination: &workload.GatewayAddress_Address{Address: &workload.NetworkAddress{Address: wp.ip.AsSlice()}}}
	w.workload(b, func(x *workload.Workload) { x.Waypoint = gateway })
	s, code := connect(b.at(9080).String())
	if code != http.StatusOK || exchange(s, "hello") != "hello" {
		t.Errorf("the waypoint of the workload answers %d, want its own application", code)
	}
	if _, code := connect(netip.AddrPortFrom(vip.Addr(), 9080).String()); code != http.StatusBadRequest {
		t.Errorf("for a service that has no waypoint it answers %d, want 400", code)
	}
	w.must(w.store.ApplyAddresses(state.Addresses{Set: []*workload.Address{{Type: &workload.Address_Service{Service: &workload.Service{
		Name: "b", Namespace: "default", Hostname: "b.default.svc.cluster.local", Waypoint: gateway,
		Addresses: []*workload.NetworkAddress{{Address: vip.Addr().AsSlice()}}, Ports: []*workload.Port{{ServicePort: 9080, TargetPort: 9080}},
	}}}}}))
	for _, authority := range []string{netip.AddrPortFrom(vip.Addr(), 9080).String(), "b.default.svc.cluster.local:9080"} {
		if s, code := connect(authority); code != http.StatusOK || exchange(s, "hello") != "hello" {
			t.Errorf("for its service as %s it answers %d, want its own application", authority, code)
		}
	}
	if _, code := connect(netip.AddrPortFrom(vip.Addr(), 15001).String()); code != http.StatusBadRequest {
		t.Errorf("a port of the proxy: %d, want 400", code)
	}
	if n := app.conns.Load(); n != 3 {
		t.Errorf("the application got %d connections, want 3", n)
	}
}

// HB-09: a service's name leads to the pod's own port for it, if there is such a service and it selects the pod.
func TestNamesLeadToThePodsOwnPort(t *testing.T) {
	w := newWorld(t)
	b, c, x := w.captured("b", "10.0.0.2"), w.captured("c", "10.0.0.4"), w.outside("x", "10.0.0.3")
	w.service(b, "10.96.0.1")
	w.service(c, "10.96.0.2")
	app, other := b.echo(9080), c.echo(9080)
	connect := w.knocker(x, b)
	if s, code := connect("b.default.svc.cluster.local:80"); code != http.StatusOK || exchange(s, "hello") != "hello" {
		t.Errorf("the pod's own service: %d, want its target port", code)
	}
	for authority, want := range map[string]int{
		"nobody.default.svc.cluster.local:80": http.StatusBadRequest,
		"c.default.svc.cluster.local:80":      http.StatusBadRequest,
		"b.default.svc.cluster.local:81":      http.StatusServiceUnavailable,
	} {
		if _, code := connect(authority); code != want {
			t.Errorf("%s: %d, want %d", authority, code, want)
		}
	}
	if app.conns.Load() != 1 || other.conns.Load() != 0 {
		t.Errorf("the pod's application got %d connections, want 1, another's %d, want none", app.conns.Load(), other.conns.Load())
	}
}

func TestApplicationTunnelTellsWhoseAndWhereTo(t *testing.T) {
	w := newWorld(t)
	b, x := w.captured("b", "10.0.0.2"), w.outside("x", "10.0.0.3")
	vip := w.service(b, "10.96.0.1")
	w.workload(b, func(x *workload.Workload) {
		x.ApplicationTunnel = &workload.ApplicationTunnel{Protocol: workload.ApplicationTunnel_PROXY, Port: 15088}
	})
	l, err := sock.Listen(b.ns, netip.AddrPortFrom(loopback(b.ip), 15088), sock.Options{})
	w.must(err)
	t.Cleanup(func() { l.Close() })
	connect := w.knocker(x, b)
	for authority, to := range map[string]netip.AddrPort{
		b.at(9080).String():              b.at(9080),
		"192.0.2.1:443":                  netip.MustParseAddrPort("192.0.2.1:443"), // the application's to judge
		"b.default.svc.cluster.local:80": netip.AddrPortFrom(vip.Addr(), 9080),
	} {
		done := make(chan string, 1)
		go func() {
			c, err := l.AcceptTCP()
			if err != nil {
				done <- err.Error()
				return
			}
			defer c.Close()
			done <- readProxyHeader(c, x, to) + exchangeBack(c)
		}()
		s, code := connect(authority)
		if code != http.StatusOK {
			t.Fatalf("CONNECT %s: %d", authority, code)
		}
		if got := exchange(s, "hello"); got != "hello" {
			t.Errorf("%s: %s", authority, got)
		}
		if wrong := <-done; wrong != "" {
			t.Errorf("%s: %s", authority, wrong)
		}
	}
}

func loopback(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.MustParseAddr("127.0.0.1")
	}
	return netip.IPv6Loopback()
}

func exchangeBack(c net.Conn) string {
	b := make([]byte, 5)
	if _, err := io.ReadFull(c, b); err != nil {
		return err.Error()
	}
	if _, err := c.Write(b); err != nil {
		return err.Error()
	}
	return ""
}

// readProxyHeader says what is wrong with a PROXY header.
func readProxyHeader(c net.Conn, x *pod, to netip.AddrPort) string {
	head := make([]byte, 16)
	if _, err := io.ReadFull(c, head); err != nil {
		return err.Error()
	}
	if !bytes.Equal(head[:13], []byte("\r\n\r\n\x00\r\nQUIT\n\x21")) {
		return "it does not begin like a PROXY header of version 2"
	}
	body := make([]byte, binary.BigEndian.Uint16(head[14:]))
	if _, err := io.ReadFull(c, body); err != nil {
		return err.Error()
	}
	size := 4
	if head[13] == 0x21 {
		size = 16
	}
	addr := func(at, port int) netip.AddrPort {
		a, _ := netip.AddrFromSlice(body[at : at+size])
		return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(body[port:]))
	}
	from, dst := addr(0, 2*size), addr(size, 2*size+2)
	if from.Addr() != x.ip || dst != to {
		return "from " + from.String() + " to " + dst.String() + ", want to " + to.String()
	}
	tlv := body[2*size+4:]
	if tlv[0] != 0xD0 || int(binary.BigEndian.Uint16(tlv[1:])) != len(tlv)-3 || string(tlv[3:]) != x.id().String() {
		return "its identity is " + string(tlv)
	}
	return ""
}
