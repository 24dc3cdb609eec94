package proxy_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/ambit-mesh/ambit/api/authorization"
	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/hbone"
	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/identity/mtls"
	"github.com/ambit-mesh/ambit/internal/testkit/fakeca"
	"github.com/ambit-mesh/ambit/internal/testkit/podtest"
	"github.com/ambit-mesh/ambit/linux/sock"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/ztunnel/internal/state"
)

func rule(m *authorization.Match) []*authorization.Rule {
	return []*authorization.Rule{{Clauses: []*authorization.Clause{{Matches: []*authorization.Match{m}}}}}
}

func policy(name string, action authorization.Action, m *authorization.Match) *authorization.Authorization {
	return &authorization.Authorization{Name: name, Namespace: "default", Scope: authorization.Scope_NAMESPACE, Action: action, Rules: rule(m)}
}

func principals(p string) []*authorization.StringMatch {
	return []*authorization.StringMatch{{MatchType: &authorization.StringMatch_Exact{Exact: p}}}
}

func strict() *authorization.Authorization {
	return policy("strict", authorization.Action_DENY, &authorization.Match{
		NotPrincipals: []*authorization.StringMatch{{MatchType: &authorization.StringMatch_Presence{Presence: &emptypb.Empty{}}}},
	})
}

func TestServiceIsReachedThroughTheTunnel(t *testing.T) {
	w := newWorld(t)
	a, b := w.captured("a", "10.0.0.1"), w.captured("b", "10.0.0.2")
	vip := w.service(b, "10.96.0.1")
	app := b.echo(9080)
	a.says(vip, "hello")
	if from := <-app.seen; from.Addr() != a.ip {
		t.Errorf("the application saw %s, want the client's own address %s", from, a.ip)
	}
	w.want("connection complete", "src.addr=10.0.0.1:", `src.workload="a"`, `src.identity="spiffe://cluster.local/ns/default/sa/a"`,
		"dst.addr=10.0.0.2:15008", "dst.hbone_addr=10.0.0.2:9080", `dst.service="b.default.svc.cluster.local"`, `dst.workload="b"`,
		`dst.identity="spiffe://cluster.local/ns/default/sa/b"`, `direction="outbound"`, "bytes_sent=5", "bytes_recv=5")
	w.want("connection complete", `direction="inbound"`, `src.identity="spiffe://cluster.local/ns/default/sa/a"`, `src.workload="a"`, `dst.workload="b"`,
		"dst.addr=10.0.0.2:15008", "dst.hbone_addr=10.0.0.2:9080", `dst.service="b.default.svc.cluster.local"`)

	a.says(b.at(9080), "by pod IP")
	w.want(`direction="inbound"`, `dst.service="b.default.svc.cluster.local"`, "bytes_sent=9")
	a.refused(netip.AddrPortFrom(vip.Addr(), 81))
	w.want("warn\taccess\tconnection failed\tsrc.addr=10.0.0.1:", `dst.addr=10.96.0.1:81 direction="outbound" error="no healthy upstream: 10.96.0.1:81`)
}

func TestSelfCallByService(t *testing.T) { // L4-14
	w := newWorld(t)
	a := w.captured("a", "10.0.0.1")
	vip := w.service(a, "10.96.0.2")
	app := a.echo(9080)
	a.says(vip, "to itself")
	if from := <-app.seen; from.Addr() != a.ip {
		t.Errorf("the application saw %s, want %s", from, a.ip)
	}
	w.policies(policy("no-a", authorization.Action_DENY, &authorization.Match{Principals: principals("cluster.local/ns/default/sa/a")}))
	before := app.conns.Load()
	a.refused(vip)
	if n := app.conns.Load(); n != before {
		t.Errorf("the application got %d more connections", n-before)
	}
}

func TestHalfCloseIsKept(t *testing.T) {
	w := newWorld(t)
	a, b := w.captured("a", "10.0.0.1"), w.captured("b", "10.0.0.2")
	big := make([]byte, 3<<20)
	for i := range big {
		big[i] = byte(i * 7)
	}
	b.listen(9080, func(c *net.TCPConn) {
		if _, err := io.Copy(io.Discard, c); err != nil { // until the client's end
			return
		}
		_, _ = c.Write(big) // the client counts
	})
	c := a.dial(b.at(9080))
	_, err := io.WriteString(c, "question")
	w.must(err)
	w.must(c.CloseWrite())
	got, err := io.ReadAll(c)
	w.must(err)
	if sha256.Sum256(got) != sha256.Sum256(big) {
		t.Errorf("%d bytes came, want %d", len(got), len(big))
	}
}

func TestPolicyRefusesWithoutAByte(t *testing.T) { // L4-01, L4-17
	w := newWorld(t)
	a, b, x := w.captured("a", "10.0.0.1"), w.captured("b", "10.0.0.2"), w.captured("x", "10.0.0.3")
	app := b.listen(9080, func(c *net.TCPConn) { _, _ = io.WriteString(c, "greeting") })
	w.policies(policy("only-a", authorization.Action_ALLOW, &authorization.Match{Principals: principals("cluster.local/ns/default/sa/a")}))
	x.refused(b.at(9080))
	if n := app.conns.Load(); n != 0 {
		t.Errorf("the application got %d connections from a client that is denied", n)
	}
	w.want("error\taccess\tconnection complete", `src.identity="spiffe://cluster.local/ns/default/sa/x"`, `dst.workload="b"`, `direction="inbound"`, "bytes_sent=0", "bytes_recv=0",
		`error="connection closed due to policy rejection: allow policies exist, but none allowed"`,
		`policy="default/only-a"`, "why=", "principal cluster.local/ns/default/sa/x is not cluster.local/ns/default/sa/a")
	w.want(`direction="outbound"`, `error="http status: 401 Unauthorized"`)
	c := a.dial(b.at(9080))
	got, err := io.ReadAll(c)
	if string(got) != "greeting" || err != nil {
		t.Errorf("the admitted client got %q, %v", got, err)
	}
	w.policies(policy("not-a", authorization.Action_DENY, &authorization.Match{Principals: principals("cluster.local/ns/default/sa/a")}))
	a.refused(b.at(9080))
	w.want(`error="connection closed due to policy rejection: explicitly denied by: default/not-a"`)
}

func TestPolicyNamedButNotReceivedDenies(t *testing.T) {
	w := newWorld(t)
	a, b := w.captured("a", "10.0.0.1"), w.captured("b", "10.0.0.2")
	app := b.echo(9080)
	w.workload(b, func(x *workload.Workload) { x.AuthorizationPolicies = []string{"default/absent"} })
	a.refused(b.at(9080))
	if n := app.conns.Load(); n != 0 {
		t.Errorf("the application got %d connections", n)
	}
	w.want(`error="connection closed due to policy rejection: policy not received: default/absent"`)
	w.policies(&authorization.Authorization{
		Name: "absent", Namespace: "default", Scope: authorization.Scope_WORKLOAD_SELECTOR,
		Rules: rule(&authorization.Match{Principals: principals("cluster.local/ns/default/sa/a")}),
	})
	a.says(b.at(9080), "hello")
}

func TestPlaintextIsServedUntilStrict(t *testing.T) { // BP-01
	w := newWorld(t)
	b, x := w.captured("b", "10.0.0.2"), w.outside("x", "10.0.0.3")
	app := b.echo(9080)
	x.says(b.at(9080), "hello")
	if from := <-app.seen; from.Addr() != x.ip {
		t.Errorf("the application saw %s, want %s", from, x.ip)
	}
	w.want("connection complete", "src.addr=10.0.0.3:", `direction="inbound"`, "dst.addr=10.0.0.2:9080")
	w.policies(strict())
	before := app.conns.Load()
	x.refused(b.at(9080))
	if n := app.conns.Load(); n != before {
		t.Errorf("the application got %d connections in plain text", n-before)
	}
	w.want("error\taccess\tconnection complete", "src.addr=10.0.0.3:", `dst.workload="b"`, "explicitly denied by: default/strict")
}

func TestPolicyChangeCutsOpenConnections(t *testing.T) { // L4-07
	w := newWorld(t)
	a, b, x := w.captured("a", "10.0.0.1"), w.captured("b", "10.0.0.2"), w.outside("x", "10.0.0.3")
	b.echo(9080)
	tunnelled, plain := a.dial(b.at(9080)), x.dial(b.at(9080))
	for _, c := range []net.Conn{tunnelled, plain} {
		if got := exchange(c, "before"); got != "before" {
			t.Fatalf("got %q", got)
		}
	}
	if open := b.proxy.Connections(); len(open) != 2 {
		t.Errorf("open connections %+v, want two", open)
	}
	w.policies(policy("port", authorization.Action_DENY, &authorization.Match{DestinationPorts: []uint32{9081}}))
	if got := exchange(tunnelled, "still"); got != "still" {
		t.Fatalf("a policy on another port cut the connection: %q", got)
	}
	began := time.Now()
	w.policies(policy("port", authorization.Action_DENY, &authorization.Match{DestinationPorts: []uint32{9080}}))
	for _, c := range []net.Conn{tunnelled, plain} {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read gives %v, want a reset: a cut transfer must not look complete", err)
		}
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("cut after %v, want at most 1s", took)
	}
	w.want(`error="connection closed due to policy change"`, "src.addr=10.0.0.1:", `policy="default/port"`, "why=")
}

func TestTunnelReachesNothingButItsPod(t *testing.T) { // HB-02, HB-04, ID-15
	w := newWorld(t)
	b, c, x := w.captured("b", "10.0.0.2"), w.captured("c", "10.0.0.4"), w.outside("x", "10.0.0.3")
	vip := w.service(b, "10.96.0.1")
	other := c.echo(9080)
	app := b.echo(9080)
	d := &hbone.Dialer{Source: w.ca, Roots: w.ca, DialTCP: func(ctx context.Context, h hbone.Hop) (net.Conn, error) {
		return sock.Dial(ctx, x.ns, netip.AddrPort{}, h.Addr, sock.Options{})
	}}
	t.Cleanup(func() { d.Close() })
	hop := hbone.Hop{Addr: b.at(mesh.PortHBONE), Own: x.id(), Expect: []identity.ID{b.id()}}
	status := func(authority string) int {
		t.Helper()
		s, err := d.Dial(t.Context(), hop, authority, nil)
		if err == nil {
			s.Close()
			return http.StatusOK
		}
		e, ok := errors.AsType[*hbone.StatusError](err)
		if !ok {
			t.Fatalf("CONNECT %s: %v, want an answer", authority, err)
		}
		return e.Code
	}
	reached := 0
	for authority, want := range map[string]int{
		c.at(9080).String(): 400, "127.0.0.1:9080": 400, "[::1]:9080": 400, vip.String(): 400, w.text("10.0.0.254:80"): 400,
		b.at(15001).String(): 400, b.at(15006).String(): 400, b.at(15008).String(): 400, b.at(15053).String(): 400, b.at(15080).String(): 400,
		"nowhere.default.svc.cluster.local:80": 400, "b.default.svc.cluster.local:81": 503, b.at(1).String(): 503,
		"b.default.svc.cluster.local:80": 200, b.at(9080).String(): 200, w.mapped(b.at(9080)): 200,
	} {
		if want == http.StatusOK {
			reached++
		}
		if got := status(authority); got != want {
			t.Errorf("CONNECT %s gives %d, want %d", authority, got, want)
		}
	}
	if other.conns.Load() != 0 {
		t.Error("the tunnel led to another pod")
	}
	for range reached {
		<-app.seen
	}
	w.policies(policy("not-x", authorization.Action_DENY, &authorization.Match{Principals: principals("cluster.local/ns/default/sa/x")}))
	before := app.conns.Load()
	h := http.Header{}
	h.Set("Baggage", "k8s.namespace.name=default,k8s.deployment.name=c")
	h.Set("Forwarded", `for="10.0.0.4:1"`)
	h.Set("X-Forwarded-Client-Cert", "By=x;URI=spiffe://cluster.local/ns/default/sa/c")
	_, err := d.Dial(t.Context(), hop, b.at(9080).String(), h)
	if e, ok := errors.AsType[*hbone.StatusError](err); !ok || e.Code != http.StatusUnauthorized {
		t.Errorf("a client that claims to be another in headers: %v, want 401", err)
	}
	if n := app.conns.Load(); n != before {
		t.Errorf("the application got %d connections", n-before)
	}
}

func TestCertificateIsThePodsWhateverTheSNI(t *testing.T) { // ID-10
	w := newWorld(t)
	b, x := w.captured("b", "10.0.0.2"), w.outside("x", "10.0.0.3")
	w.captured("c", "10.0.0.4")
	conf := mtls.Client(x.id(), w.ca, w.ca, mtls.OneOf(b.id()))
	conf.ServerName = "c.default.svc.cluster.local"
	raw := x.dial(b.at(mesh.PortHBONE))
	id, err := mtls.Handshake(t.Context(), tls.Client(raw, conf))
	if err != nil || id != b.id() {
		t.Errorf("peer is %s, %v; want %s", id, err, b.id())
	}
}

func TestForeignTrustDomainIsRefused(t *testing.T) {
	w := newWorld(t)
	b, x := w.captured("b", "10.0.0.2"), w.outside("x", "10.0.0.3")
	app := b.echo(9080)
	other := fakeca.NewDomain(t, "other.example")
	w.ca.Trust(other)
	d := &hbone.Dialer{Source: other, Roots: w.ca, DialTCP: func(ctx context.Context, h hbone.Hop) (net.Conn, error) {
		return sock.Dial(ctx, x.ns, netip.AddrPort{}, h.Addr, sock.Options{})
	}}
	t.Cleanup(func() { d.Close() })
	own := identity.ID{TrustDomain: "other.example", Namespace: "default", ServiceAccount: "x"}
	if s, err := d.Dial(t.Context(), hbone.Hop{Addr: b.at(mesh.PortHBONE), Own: own, Expect: []identity.ID{b.id()}}, b.at(9080).String(), nil); err == nil {
		s.Close()
		t.Error("a peer of another trust domain was admitted")
	}
	if app.conns.Load() != 0 {
		t.Error("the application was reached")
	}
}

func TestServerThatIsAnotherGetsNothing(t *testing.T) { // ID-11
	w := newWorld(t)
	a, b := w.captured("a", "10.0.0.1"), w.captured("b", "10.0.0.2")
	app := b.echo(9080)
	// What b serves is b's own certificate; the control plane says that somebody else lives there.
	w.workload(b, func(x *workload.Workload) { x.ServiceAccount = "somebody-else" })
	a.refused(b.at(9080))
	if app.conns.Load() != 0 || app.bytes.Load() != 0 {
		t.Error("the application was reached")
	}
	w.want(`direction="outbound"`, "error=\"tls error: ", "somebody-else")
}

func TestProxyPortsForwardNothing(t *testing.T) { // BP-02, BP-03
	w := newWorld(t)
	b, x := w.captured("b", "10.0.0.2"), w.outside("x", "10.0.0.3")
	for _, port := range []uint16{15000, 15001, 15006, 15008, 15020, 15021, 15053, 15080} {
		x.refused(b.at(port))
	}
	for _, port := range []uint16{15001, 15006, 15008, 15053} {
		b.refused(netip.AddrPortFrom(w.ip("127.0.0.1"), port))
		b.refused(b.at(port))
	}
	// One that sends nothing must not be kept either; it may be reset before it is seen to stand.
	if silent, err := sock.Dial(t.Context(), b.ns, netip.AddrPort{}, b.at(mesh.PortHBONE), sock.Options{}); err == nil {
		defer silent.Close()
		w.must(silent.SetDeadline(time.Now().Add(time.Second)))
		if _, err := silent.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the application's own connection to the tunnel port: %v, want it closed within a second", err)
		}
	}
	w.want(`error="attempted recursive call to ourselves"`)
	if open := b.proxy.Connections(); len(open) != 0 {
		t.Errorf("still open: %+v", open)
	}
}

func TestUnknownDestinationIsPassedThrough(t *testing.T) { // BP-19
	w := newWorld(t)
	a, x := w.captured("a", "10.0.0.1"), w.outside("x", "10.0.0.3")
	app := x.echo(9080)
	a.says(x.at(9080), "hello")
	if from := <-app.seen; from.Addr() != a.ip {
		t.Errorf("the server saw %s, want %s", from, a.ip)
	}
	w.want("connection complete", "dst.addr=10.0.0.3:9080", `direction="outbound"`)
}

func TestUnknownWaypointIsNotGoneAround(t *testing.T) {
	w := newWorld(t)
	a, b := w.captured("a", "10.0.0.1"), w.captured("b", "10.0.0.2")
	app := b.echo(9080)
	w.workload(b, func(x *workload.Workload) {
		x.Waypoint = &workload.GatewayAddress{Destination: &workload.GatewayAddress_Hostname{Hostname: &workload.NamespacedHostname{Namespace: "default", Hostname: "wp"}}}
	})
	a.refused(b.at(9080))
	if app.conns.Load() != 0 {
		t.Error("the application was reached around its waypoint")
	}
	w.want(`error="unknown waypoint: default/wp: it was not received"`)
}

func TestConnectionWaitsForThePodsWorkload(t *testing.T) {
	w := newWorld(t)
	w.conf.Wait = 5 * time.Second
	b := w.captured("b", "10.0.0.2")
	b.echo(9080)
	a := w.outside("a", "10.0.0.1")
	podtest.Capture(t, a.ns)
	w.serve(a)
	c := a.dial(b.at(9080))
	_, err := io.WriteString(c, "early")
	w.must(err)
	w.workload(a)
	got := make([]byte, 5)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "early" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestDrainLetsConnectionsFinishThenCuts(t *testing.T) {
	w := newWorld(t)
	w.conf.Grace = 500 * time.Millisecond
	a, b := w.captured("a", "10.0.0.1"), w.captured("b", "10.0.0.2")
	b.echo(9080)
	c := a.dial(b.at(9080))
	if got := exchange(c, "before"); got != "before" {
		t.Fatal(got)
	}
	stopped := make(chan struct{})
	go func() { a.stop(); close(stopped) }()
	// The listener closes at once; what is open goes on.
	for {
		probe, err := sock.Dial(t.Context(), a.ns, netip.AddrPort{}, netip.AddrPortFrom(w.ip("127.0.0.1"), mesh.PortOutbound), sock.Options{})
		if err != nil {
			break
		}
		probe.Close()
	}
	if got := exchange(c, "during"); got != "during" {
		t.Errorf("during the drain: %q", got)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after the drain: %v, want a reset", err)
	}
	<-stopped
	w.want(`error="connection closed due to connection drain"`)
}

func TestPodThatLeavesIsForgotten(t *testing.T) {
	w := newWorld(t)
	a, b := w.captured("a", "10.0.0.1"), w.captured("b", "10.0.0.2")
	b.echo(9080)
	a.says(b.at(9080), "hello")
	w.must(w.store.ApplyAddresses(state.Addresses{Remove: []string{"Kubernetes//Pod/default/b"}}))
	// The address is nobody's now: the connection goes there in plain text, and b's proxy knows no b.
	a.refused(b.at(9080))
}
