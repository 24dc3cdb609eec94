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

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/api/discovery"
	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/collection"
	"github.com/ambit-mesh/ambit/internal/testkit/fakeca"
	"github.com/ambit-mesh/ambit/xds/delta"
	"github.com/ambit-mesh/ambit/xds/server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const workloadType = "type.googleapis.com/istio.workload.Workload"

// plane is a control plane on loopback: real TLS, real gRPC.
type plane struct {
	t    *testing.T
	ca   *fakeca.CA
	addr string
	set  *collection.Set[delta.Resource]
	xds  *server.Server[string]
	stop func()
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
	t.Cleanup(func() { p.stop() })
	return p
}

func (p *plane) start(addr string) {
	p.serve(addr, grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{serving(p.ca)}, MinVersion: tls.VersionTLS13})))
}

func (p *plane) serve(addr string, creds grpc.ServerOption) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		p.t.Fatal(err)
	}
	p.addr = l.Addr().String()
	gs := grpc.NewServer(append(server.Options(), creds)...)
	p.xds.Register(gs)
	go func() { _ = gs.Serve(l) }() // ends with grpc.Stop
	p.stop = func() {
		gs.Stop()
		l.Close() // in case that Serve had not begun
	}
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
	return p.run(New(Config{
		Address: p.addr, ClusterID: "Kubernetes", Node: &discovery.Node{Id: "ztunnel~10.0.0.1~z.istio-system~istio-system.svc.cluster.local"},
		TLS: func() (*tls.Config, error) {
			return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: host}, nil
		},
		Token:    func() (string, error) { return who, nil },
		Handlers: []Handler{Handle(workloadType, onDemand, w.apply)},
		Log:      slog.New(slog.DiscardHandler),
	}))
}

// run runs a client until the test ends.
func (p *plane) run(c *Client) *Client {
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
	p.stop()
	p.set.Drop("gone")
	p.put("new", "1")
	w.await(t, map[string]string{"same": "1", "gone": "1"}) // the last configuration goes on
	w.mu.Lock()
	before := w.batches
	delete(w.held, "same") // to see that it is not sent again
	w.mu.Unlock()
	p.start(p.addr)
	w.await(t, map[string]string{"new": "1"})
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.batches != before+1 {
		t.Errorf("%d batches to resume, want 1", w.batches-before)
	}
}
