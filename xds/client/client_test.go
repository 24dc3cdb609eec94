package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/api/discovery"
	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/collection"
	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/internal/testkit/fakeca"
	"github.com/ambit-mesh/ambit/xds/delta"
	"github.com/ambit-mesh/ambit/xds/server"
)

const workloadType = "type.googleapis.com/istio.workload.Workload"

// plane is a control plane on loopback: real TLS, real gRPC.
type plane struct {
	t    *testing.T
	ca   *fakeca.CA
	addr string
	set  *collection.Set[delta.Resource]
	xds  *server.Server[string]
	grpc *grpc.Server
}

func newPlane(t *testing.T) *plane {
	g := collection.NewGraph()
	p := &plane{t: t, ca: fakeca.New(t)}
	p.set = collection.NewSet(g, func(r delta.Resource) string { return r.Name }, func(a, b delta.Resource) bool { return a.Version == b.Version })
	p.xds = server.New(server.Config[string]{
		Authenticate: func(ctx context.Context) (string, error) {
			md, _ := metadata.FromIncomingContext(ctx)
			who, ok := strings.CutPrefix(strings.Join(md.Get("authorization"), ""), "Bearer ")
			if !ok || who == "nobody" {
				return "", errors.New("no token")
			}
			return who, nil
		},
		Types: []server.Type[string]{{
			URL: workloadType, Resources: p.set,
			Visible: func(who string, r delta.Resource) bool {
				return !strings.HasPrefix(r.Name, "secret-") || who == "admin"
			},
		}},
		AnswerTimeout: time.Second,
		Log:           slog.New(slog.DiscardHandler),
	})
	t.Cleanup(p.xds.Close)
	p.start("127.0.0.1:0")
	t.Cleanup(func() { p.grpc.Stop() })
	return p
}

func (p *plane) start(addr string) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		p.t.Fatal(err)
	}
	p.addr = l.Addr().String()
	cert := p.ca.Issue(identity.ID{TrustDomain: "cluster.local", Namespace: "istio-system", ServiceAccount: "istiod"}).TLS()
	p.grpc = grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{*cert}, MinVersion: tls.VersionTLS13})))
	p.xds.Register(p.grpc)
	go func() { _ = p.grpc.Serve(l) }() // ends with grpc.Stop
}

func (p *plane) put(name, version string, aliases ...string) {
	body, err := anypb.New(&workload.Workload{Uid: name, Name: version})
	if err != nil {
		p.t.Fatal(err)
	}
	p.set.Put(delta.Resource{Name: name, Version: version, Aliases: aliases, Body: body})
}

// world is what a client has been told.
type world struct {
	mu      sync.Mutex
	held    map[string]string
	batches int
	refuse  string
	news    chan struct{}
}

func newWorld() *world { return &world{held: map[string]string{}, news: make(chan struct{}, 100)} }

func (w *world) apply(up []Item[*workload.Workload], down []string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer func() { w.news <- struct{}{} }()
	w.batches++
	for _, i := range up {
		if i.Name == w.refuse {
			return fmt.Errorf("%s is not understood", i.Name)
		}
		w.held[i.Name] = i.Body.GetName()
	}
	for _, n := range down {
		delete(w.held, n)
	}
	return nil
}

// await waits until the client holds exactly want.
func (w *world) await(t *testing.T, want map[string]string) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		w.mu.Lock()
		got := maps.Clone(w.held)
		w.mu.Unlock()
		if cmp.Equal(got, want) {
			return
		}
		select {
		case <-w.news:
		case <-deadline:
			t.Fatalf("-want +got:\n%s", cmp.Diff(want, got))
		}
	}
}

func (p *plane) client(who string, onDemand bool, w *world) *Client {
	roots := x509.NewCertPool()
	roots.AddCert(p.ca.Root())
	c := New(Config{
		Address: p.addr, ClusterID: "Kubernetes", Node: &discovery.Node{Id: "ztunnel~10.0.0.1~z.istio-system~istio-system.svc.cluster.local"},
		TLS: func() (*tls.Config, error) {
			return &tls.Config{
				MinVersion: tls.VersionTLS13, InsecureSkipVerify: true,
				VerifyConnection: func(s tls.ConnectionState) error {
					_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots})
					return err
				},
			}, nil
		},
		Token:    func() (string, error) { return who, nil },
		Handlers: []Handler{Handle(workloadType, onDemand, w.apply)},
		Log:      slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	p.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			p.t.Error(err)
		}
	})
	return c
}

func TestFollowsChangesAndVisibility(t *testing.T) {
	p, w, admin := newPlane(t), newWorld(), newWorld()
	p.put("a", "1")
	p.put("secret-b", "1")
	c := p.client("ztunnel", false, w)
	p.client("admin", false, admin)
	<-c.Synced(workloadType)
	w.await(t, map[string]string{"a": "1"})
	admin.await(t, map[string]string{"a": "1", "secret-b": "1"})
	p.put("a", "2")
	p.put("c", "1")
	p.set.Drop("a")
	w.await(t, map[string]string{"c": "1"})
}

func TestOnDemandByAlias(t *testing.T) {
	p, w := newPlane(t), newWorld()
	p.put("uid1", "1", "/10.0.0.1")
	p.put("uid2", "1", "/10.0.0.2")
	c := p.client("ztunnel", true, w)
	<-c.Synced(workloadType)
	c.Subscribe(workloadType, "/10.0.0.2")
	w.await(t, map[string]string{"uid2": "1"})
}

func TestNackIsKeptAndShown(t *testing.T) {
	p, w := newPlane(t), newWorld()
	w.refuse = "bad"
	p.put("good", "1")
	p.client("ztunnel", false, w)
	w.await(t, map[string]string{"good": "1"})
	p.put("bad", "1")
	deadline := time.Now().Add(10 * time.Second)
	for {
		subs := p.xds.Subscribers()
		if len(subs) == 1 && strings.Contains(subs[0].Types[workloadType].Nack, "bad is not understood") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("subscribers %+v: no NACK shown", subs)
		}
		time.Sleep(5 * time.Millisecond)
	}
	p.put("good", "2")
	w.await(t, map[string]string{"good": "2"})
}

// XD-09: the control plane restarts; nothing is withdrawn in between and only what changed is sent again.
func TestXD09RestartResumes(t *testing.T) {
	p, w := newPlane(t), newWorld()
	p.put("same", "1")
	p.put("gone", "1")
	p.client("ztunnel", false, w)
	w.await(t, map[string]string{"same": "1", "gone": "1"})
	p.grpc.Stop()
	p.set.Drop("gone")
	p.put("new", "1")
	w.await(t, map[string]string{"same": "1", "gone": "1"}) // the last configuration goes on
	w.mu.Lock()
	before := w.batches
	delete(w.held, "same") // to see that it is not sent again
	w.mu.Unlock()
	p.start(p.addr)
	w.await(t, map[string]string{"new": "1"})
	if w.batches != before+1 {
		t.Errorf("%d batches to resume, want 1", w.batches-before)
	}
}

// XD-01: without credentials nothing is read and nothing sent.
func TestXD01NoCredentials(t *testing.T) {
	p, w := newPlane(t), newWorld()
	p.put("a", "1")
	c := p.client("nobody", false, w)
	conn, err := c.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	s, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RecvMsg(&discovery.DeltaDiscoveryResponse{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("error %v, want UNAUTHENTICATED", err)
	}
	if len(p.xds.Subscribers()) != 0 || w.batches != 0 {
		t.Error("a caller without credentials became a subscriber")
	}
}

// XD-07: a subscriber that never reads is dropped, and others go on.
func TestXD07SlowSubscriberIsDropped(t *testing.T) {
	p, w := newPlane(t), newWorld()
	for i := range 3000 {
		p.put(fmt.Sprintf("w%d-%s", i, strings.Repeat("x", 500)), "1")
	}
	c := p.client("nobody", false, newWorld()) // for its way to dial
	conn, err := c.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer slow")
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SendMsg(&discovery.DeltaDiscoveryRequest{TypeUrl: workloadType}); err != nil {
		t.Fatal(err)
	}
	good := p.client("ztunnel", false, w)
	<-good.Synced(workloadType)
	deadline := time.Now().Add(20 * time.Second)
	for {
		slow := false
		for _, sub := range p.xds.Subscribers() {
			slow = slow || sub.Caller == "slow"
		}
		if !slow {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the slow subscriber is still connected")
		}
		time.Sleep(20 * time.Millisecond)
	}
	p.put("late", "1")
	w.mu.Lock()
	n := len(w.held)
	w.mu.Unlock()
	if n < 3000 {
		t.Errorf("the other subscriber holds %d", n)
	}
}
