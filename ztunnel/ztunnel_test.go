package ztunnel_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/ambit-mesh/ambit/api/authorization"
	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/api/zds"
	"github.com/ambit-mesh/ambit/collection"
	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/identity/certs"
	"github.com/ambit-mesh/ambit/internal/testkit/netnstest"
	"github.com/ambit-mesh/ambit/internal/testkit/podtest"
	"github.com/ambit-mesh/ambit/lifecycle"
	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/linux/sock"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/telemetry"
	"github.com/ambit-mesh/ambit/xds/client"
	"github.com/ambit-mesh/ambit/xds/delta"
	"github.com/ambit-mesh/ambit/xds/server"
	"github.com/ambit-mesh/ambit/ztunnel"

	"google.golang.org/grpc/credentials/insecure"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// plane is a control plane on loopback.
type plane struct {
	t                   *testing.T
	addresses, policies *collection.Set[delta.Resource]
	addr                string
	hold                chan struct{} // until it is closed nobody is answered; nil holds nobody
}

func newPlane(t *testing.T) *plane {
	t.Helper()
	g := collection.NewGraph()
	set := func() *collection.Set[delta.Resource] {
		return collection.NewSet(g, func(r delta.Resource) string { return r.Name }, func(a, b delta.Resource) bool { return a.Version == b.Version })
	}
	p := &plane{t: t, addresses: set(), policies: set()}
	s := server.New(server.Config[struct{}]{
		Authenticate: func(ctx context.Context) (struct{}, error) {
			if p.hold != nil {
				select {
				case <-p.hold:
				case <-ctx.Done():
				}
			}
			return struct{}{}, nil
		},
		Types: []server.Type[struct{}]{{URL: mesh.TypeAuthorization, Resources: p.policies}, {URL: mesh.TypeAddress, Resources: p.addresses}},
		Log:   slog.New(slog.DiscardHandler),
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.addr = l.Addr().String()
	gs := grpc.NewServer(server.Options()...)
	s.Register(gs)
	var wg sync.WaitGroup
	wg.Go(func() { _ = gs.Serve(l) }) // ends with Stop
	t.Cleanup(func() { gs.Stop(); wg.Wait(); s.Close() })
	return p
}

func (p *plane) put(set *collection.Set[delta.Resource], name, version string, m proto.Message) {
	p.t.Helper()
	body, err := anypb.New(m)
	if err != nil {
		p.t.Fatal(err)
	}
	set.Put(delta.Resource{Name: name, Version: version, Body: body})
}

func (p *plane) pod(name, ip string) {
	uid := "Kubernetes//Pod/default/" + name
	p.put(p.addresses, uid, "1", &workload.Address{Type: &workload.Address_Workload{Workload: &workload.Workload{
		Uid: uid, Name: name, Namespace: "default", ServiceAccount: name, Addresses: [][]byte{netip.MustParseAddr(ip).AsSlice()},
		TunnelProtocol: workload.TunnelProtocol_HBONE, ClusterId: "Kubernetes", WorkloadName: name,
	}}})
}

// gated is an authority that is away until open is closed.
type gated struct {
	certs.Authority
	open chan struct{}
}

func (g gated) Issue(ctx context.Context, id identity.ID) (certs.Issued, error) {
	select {
	case <-g.open:
		return g.Authority.Issue(ctx, id)
	case <-ctx.Done():
		return certs.Issued{}, ctx.Err()
	}
}

// agent is a node agent with one proxy connected.
type agent struct {
	t *testing.T
	l *net.UnixListener
	c *net.UnixConn
}

func (a *agent) accept() {
	a.t.Helper()
	c, err := a.l.AcceptUnix()
	if err != nil {
		a.t.Fatal(err)
	}
	a.c = c
	a.t.Cleanup(func() { c.Close() })
	if _, err := c.Read(make([]byte, 100)); err != nil { // its hello
		a.t.Fatal(err)
	}
}

func (a *agent) ask(r *zds.WorkloadRequest, ns *netns.Namespace) {
	a.t.Helper()
	b, err := proto.Marshal(r)
	if err != nil {
		a.t.Fatal(err)
	}
	var oob []byte
	if ns != nil {
		oob = unix.UnixRights(int(ns.File().Fd()))
	}
	if _, _, err := a.c.WriteMsgUnix(b, oob, nil); err != nil {
		a.t.Fatal(err)
	}
	answer := make([]byte, 1024)
	n, err := a.c.Read(answer)
	if err != nil {
		a.t.Fatal(err)
	}
	var resp zds.WorkloadResponse
	if err := proto.Unmarshal(answer[:n], &resp); err != nil || resp.GetAck().GetError() != "" {
		a.t.Fatalf("answer %v, %v", &resp, err)
	}
}

func (a *agent) add(name string, ns *netns.Namespace) {
	a.t.Helper()
	a.ask(&zds.WorkloadRequest{Payload: &zds.WorkloadRequest_Add{Add: &zds.AddWorkload{
		Uid: "uid-" + name, WorkloadInfo: &zds.WorkloadInfo{Name: name, Namespace: "default", ServiceAccount: name},
	}}}, ns)
}

// buffer is a log that several may write.
type buffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(10 * time.Second); ; {
		if f() {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within 10s: %s", what)
		}
	}
}

func TestPodsOfANodeFromTheAgentToTheWire(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) }) // after all that is cleaned up below
	bridge := podtest.Bridge(t)
	a, b := podtest.Pod(t, bridge, "a", netip.MustParseAddr("10.0.0.1")), podtest.Pod(t, bridge, "b", netip.MustParseAddr("10.0.0.2"))
	podtest.Capture(t, a)
	podtest.Capture(t, b)
	cp := newPlane(t)
	socket := filepath.Join(t.TempDir(), "z.sock")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Net: "unixpacket", Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	cni := &agent{t: t, l: l}

	var log buffer
	levels, err := telemetry.ParseLevels("info")
	if err != nil {
		t.Fatal(err)
	}
	h := telemetry.NewHandler(&log, telemetry.Walkthrough, levels)
	ready := &lifecycle.Readiness{}
	open := make(chan struct{})
	ca, metrics := newAuthority(t), telemetry.NewMetrics("ztunnel", "test")
	z, err := ztunnel.New(ztunnel.Config{
		Node: "n1", Pod: "ztunnel-1", Namespace: "istio-system", IP: "10.0.0.100", ZDSSocket: socket, Grace: 20 * time.Second,
		XDS: client.Config{
			Address: cp.addr, TLS: func() (*tls.Config, error) { return &tls.Config{MinVersion: tls.VersionTLS13}, nil },
			DialOptions: []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())},
		},
		CA: gated{ca, open}, Ready: ready, Metrics: metrics, Access: telemetry.NewAccess(h), Log: slog.New(h),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	cp.hold = make(chan struct{})
	go func() { ended <- z.Run(ctx) }()
	if err := l.SetDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Accept(); err == nil {
		t.Error("pods are asked for before there is any configuration")
	}
	if err := l.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	close(cp.hold)

	cni.accept()
	cni.add("a", a)
	if p := ready.Pending(); len(p) == 0 {
		t.Error("ready before the agent's list is whole")
	}
	cni.ask(&zds.WorkloadRequest{Payload: &zds.WorkloadRequest_SnapshotSent{SnapshotSent: &zds.SnapshotSent{}}}, nil)
	cni.add("b", b)
	cp.pod("a", "10.0.0.1")
	cp.pod("b", "10.0.0.2")
	eventually(t, "only certificates are missing", func() bool { return slices.Equal(ready.Pending(), []string{"certificates of the node's pods"}) })
	close(open)
	eventually(t, "ready", func() bool { return len(ready.Pending()) == 0 })

	server, err := sock.Listen(b, netip.MustParseAddrPort("10.0.0.2:9080"), sock.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := server.AcceptTCP()
			if err != nil {
				return
			}
			_, _ = io.Copy(c, c) // the client judges what comes back
			c.Close()
		}
	})
	t.Cleanup(func() { server.Close(); wg.Wait() })
	call := func() (string, error) {
		c, err := sock.Dial(t.Context(), a, netip.AddrPort{}, netip.MustParseAddrPort("10.0.0.2:9080"), sock.Options{})
		if err != nil {
			return "", err
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return "", err
		}
		if _, err := io.WriteString(c, "hello"); err != nil {
			return "", err
		}
		if err := c.CloseWrite(); err != nil {
			return "", err
		}
		got, err := io.ReadAll(c)
		return string(got), err
	}
	if got, err := call(); got != "hello" || err != nil {
		t.Fatalf("got %q, %v\n%s", got, err, &log)
	}
	for _, want := range []string{
		"proxy to 10.0.0.2:9080 using HBONE via 10.0.0.2:15008 type Direct",
		"peer_ip=10.0.0.1 peer_id=spiffe://cluster.local/ns/default/sa/a}: ztunnel::proxy::inbound: got CONNECT request to 10.0.0.2:9080",
	} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %q in the log:\n%s", want, &log)
		}
	}
	var indented, compact bytes.Buffer
	if err := z.WriteDump(&indented, "test"); err != nil {
		t.Fatal(err)
	}
	if err := json.Compact(&compact, indented.Bytes()); err != nil {
		t.Fatalf("%v in %s", err, &indented)
	}
	dump := compact.String()
	for _, want := range []string{`"uid":"Kubernetes//Pod/default/b"`, `"uid-a":{"state":"Up"`, `"identity":"spiffe://cluster.local/ns/default/sa/a","state":"Available"`} {
		if !strings.Contains(dump, want) {
			t.Errorf("no %s in the dump:\n%s", want, dump)
		}
	}
	searchForKeys(t, z, ready, metrics, log.String(), ca)

	cp.put(cp.policies, "default/nobody", "1", &authorization.Authorization{Name: "nobody", Namespace: "default", Scope: authorization.Scope_NAMESPACE})
	eventually(t, "refused by policy", func() bool { got, err := call(); return got == "" && err != nil })

	cni.ask(&zds.WorkloadRequest{Payload: &zds.WorkloadRequest_Del{Del: &zds.DelWorkload{Uid: "uid-b"}}}, nil)
	eventually(t, "b's ports are closed", func() bool {
		c, err := sock.Dial(t.Context(), bridge, netip.AddrPort{}, netip.MustParseAddrPort("10.0.0.2:15008"), sock.Options{})
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("Run() = %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("Run() did not return")
	}
}
