package ztunnel

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/collection"
	"github.com/ambit-mesh/ambit/lifecycle"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/telemetry"
	"github.com/ambit-mesh/ambit/xds/client"
	"github.com/ambit-mesh/ambit/xds/delta"
	"github.com/ambit-mesh/ambit/xds/server"
	"github.com/ambit-mesh/ambit/ztunnel/internal/state"
)

// library is a control plane on loopback that is asked on demand.
type library struct {
	t         *testing.T
	addresses *collection.Set[delta.Resource]
	stop      func()
}

func newLibrary(t *testing.T) (*library, *Ztunnel) {
	t.Helper()
	t.Cleanup(func() { goleak.VerifyNone(t) })
	g := collection.NewGraph()
	set := func() *collection.Set[delta.Resource] {
		return collection.NewSet(g, func(r delta.Resource) string { return r.Name }, func(a, b delta.Resource) bool { return a.Version == b.Version })
	}
	l := &library{t: t, addresses: set()}
	s := server.New(server.Config[struct{}]{
		Authenticate: func(context.Context) (struct{}, error) { return struct{}{}, nil },
		Types:        []server.Type[struct{}]{{URL: mesh.TypeAuthorization, Resources: set()}, {URL: mesh.TypeAddress, Resources: l.addresses}},
		Log:          slog.New(slog.DiscardHandler),
	})
	at, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gs := grpc.NewServer(server.Options()...)
	s.Register(gs)
	var wg sync.WaitGroup
	wg.Go(func() { _ = gs.Serve(at) }) // ends with Stop
	l.stop = sync.OnceFunc(func() { gs.Stop(); wg.Wait(); s.Close() })
	t.Cleanup(l.stop)

	levels, err := telemetry.ParseLevels("info")
	if err != nil {
		t.Fatal(err)
	}
	z, err := New(Config{
		Node: "n", ClusterID: "k", OnDemand: true, Ready: &lifecycle.Readiness{}, Metrics: telemetry.NewMetrics("ztunnel", "test"),
		Access: telemetry.NewAccess(telemetry.NewHandler(&strings.Builder{}, telemetry.Text, levels)), Log: slog.New(slog.DiscardHandler),
		XDS: client.Config{
			Address: at.Addr().String(), DialOptions: []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())},
			TLS: func() (*tls.Config, error) { return &tls.Config{}, nil }, //nolint:gosec // it is not used
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- z.xds.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return l, z
}

func (l *library) put(name string, aliases, with []string, a *workload.Address) {
	l.t.Helper()
	body, err := anypb.New(a)
	if err != nil {
		l.t.Fatal(err)
	}
	b, err := proto.Marshal(a)
	if err != nil {
		l.t.Fatal(err)
	}
	l.addresses.Put(delta.Resource{Name: name, Aliases: aliases, With: with, Version: hex.EncodeToString(b), Body: body})
}

func (l *library) pod(name, ip, service string, port uint32) {
	w := &workload.Workload{
		Uid: "k//Pod/default/" + name, Name: name, Namespace: "default", ServiceAccount: name,
		Addresses: [][]byte{netip.MustParseAddr(ip).AsSlice()}, TunnelProtocol: workload.TunnelProtocol_HBONE,
	}
	var with []string
	if service != "" {
		with = []string{"default/" + service}
		w.Services = map[string]*workload.PortList{with[0]: {Ports: []*workload.Port{{ServicePort: port, TargetPort: port}}}}
	}
	l.put(w.Uid, []string{"/" + ip}, with, &workload.Address{Type: &workload.Address_Workload{Workload: w}})
}

func (l *library) service(host, ip string, port uint32, waypoint string) {
	s := &workload.Service{
		Name: host, Namespace: "default", Hostname: host, Addresses: []*workload.NetworkAddress{{Address: netip.MustParseAddr(ip).AsSlice()}},
		Ports: []*workload.Port{{ServicePort: port, TargetPort: port}},
	}
	if waypoint != "" {
		s.Waypoint = &workload.GatewayAddress{HboneMtlsPort: 15008, Destination: &workload.GatewayAddress_Hostname{Hostname: &workload.NamespacedHostname{Namespace: "default", Hostname: waypoint}}}
	}
	l.put("default/"+host, []string{"/" + ip}, nil, &workload.Address{Type: &workload.Address_Service{Service: s}})
}

func TestOnDemand(t *testing.T) {
	l, z := newLibrary(t)
	l.pod("web", "10.0.0.2", "web.local", 80)
	l.service("web.local", "10.96.0.1", 80, "")
	l.pod("api", "10.0.0.3", "api.local", 80)
	l.service("api.local", "10.96.0.2", 80, "wp.local")
	l.pod("wp", "10.0.0.9", "wp.local", 15008)
	l.service("wp.local", "10.96.0.9", 15008, "")
	l.service("gone.local", "10.96.0.3", 80, "nobody.local")
	l.pod("bystander", "10.0.0.7", "", 0)

	from := &state.Workload{Kin: &state.Kin{Namespace: "default"}, Place: &state.Place{}}
	route := func(to string) state.Route {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		return z.routes.Route(ctx, nil, from, netip.MustParseAddrPort(to))
	}
	for to, want := range map[string]string{
		"10.96.0.1:80": "10.0.0.2:15008", "10.0.0.2:9080": "10.0.0.2:15008", // a service and its endpoints; a pod
		"10.96.0.2:80": "10.0.0.9:15008", // a waypoint, and its endpoints
	} {
		if r := route(to); r.Kind != state.HBONE || r.Hop.Addr.String() != want {
			t.Errorf("%s: %s over %s: %s", to, r.Kind, r.Hop.Addr, r.Why())
		}
	}
	if r := route("10.96.0.3:80"); r.Why() != "unknown waypoint: default/nobody.local: it was not received" {
		t.Errorf("a waypoint that is not there: %s, %s", r.Kind, r.Why())
	}
	if r := route("192.0.2.1:443"); r.Kind != state.Passthrough {
		t.Errorf("outside: %s, %s", r.Kind, r.Why())
	}
	if z.state.Workload(netip.MustParseAddr("10.0.0.7")) != nil {
		t.Error("a workload was told of that nobody asked for")
	}

	changed := z.state.Changed()
	l.pod("new", "192.0.2.1", "", 0) // what was nothing becomes something
	select {
	case <-changed:
	case <-time.After(10 * time.Second):
		t.Fatal("not told that an address that was asked for is a pod now")
	}
	if r := route("192.0.2.1:443"); r.Kind != state.HBONE {
		t.Errorf("once a pod: %s, %s", r.Kind, r.Why())
	}

	l.stop()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, context.DeadlineExceeded)
	defer cancel()
	if r := z.routes.Route(ctx, nil, from, netip.MustParseAddrPort("10.0.0.7:80")); r.Kind != state.Refuse || !strings.HasPrefix(r.Why(), "unknown destination: 10.0.0.7:80: wait for what /10.0.0.7 is") {
		t.Errorf("without a control plane: %s, %s", r.Kind, r.Why())
	}
	if r := route("10.96.0.1:80"); r.Kind != state.HBONE { // what is known goes on
		t.Errorf("without a control plane: %s, %s", r.Kind, r.Why())
	}
}
