package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/ambit-mesh/ambit/api/discovery"
	"github.com/ambit-mesh/ambit/collection"
	"github.com/ambit-mesh/ambit/internal/testkit/memnet"
	"github.com/ambit-mesh/ambit/xds/delta"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// plane serves two types, in this order, over memory in virtual time.
type plane struct {
	t        *testing.T
	graph    *collection.Graph
	policies *collection.Set[delta.Resource]
	things   *collection.Set[delta.Resource]
	xds      *Server[string]
	net      *memnet.Listener
	reports  chan Subscriber[string]
	sent     chan Sent
	heard    chan Heard
}

// in runs f beside a plane; everything has ended when it returns.
func in(t *testing.T, f func(t *testing.T, p *plane)) {
	synctest.Test(t, func(t *testing.T) {
		name := func(r delta.Resource) string { return r.Name }
		same := func(a, b delta.Resource) bool { return a.Version == b.Version }
		p := &plane{t: t, graph: collection.NewGraph(), net: memnet.Listen("10.0.0.1:15012"), reports: make(chan Subscriber[string], 1000), sent: make(chan Sent, 1000), heard: make(chan Heard, 1000)}
		p.things = collection.NewSet(p.graph, name, same)
		p.policies = collection.NewSet(p.graph, name, same)
		p.xds = New(Config[string]{
			Authenticate: func(ctx context.Context) (string, error) {
				md, _ := metadata.FromIncomingContext(ctx)
				who, ok := strings.CutPrefix(strings.Join(md.Get("authorization"), ""), "Bearer ")
				if !ok {
					return "", errors.New("no token")
				}
				return who, nil
			},
			Admit: func(who string, n *discovery.Node) error {
				if !strings.Contains(n.GetId(), "."+who+"~") {
					return fmt.Errorf("%s is not of namespace %s", n.GetId(), who)
				}
				return nil
			},
			Types:    []Type[string]{{URL: "policy", Resources: p.policies}, {URL: "thing", Resources: p.things}},
			Answered: func(s Subscriber[string]) { p.reports <- s },
			Sent:     func(s Sent) { p.sent <- s },
			Heard:    func(h Heard) { p.heard <- h },
			Log:      slog.New(slog.DiscardHandler),
		})
		gs := grpc.NewServer(Options()...)
		p.xds.Register(gs)
		done := make(chan error, 1)
		go func() { done <- gs.Serve(p.net) }()
		f(t, p)
		gs.Stop()
		p.xds.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func thing(name, version string) delta.Resource {
	return delta.Resource{Name: name, Version: version, Body: &anypb.Any{TypeUrl: "thing", Value: []byte(name + version)}}
}

// caller is a subscriber that says and reads only what the test wants.
type caller struct {
	t *testing.T
	grpc.ClientStream
	end func()
}

func (p *plane) call(token string) *caller {
	conn, err := grpc.NewClient("passthrough:xds", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return p.net.Dial(ctx) }))
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(p.t.Context())
	if token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources")
	if err != nil {
		p.t.Fatal(err)
	}
	return &caller{p.t, s, func() { cancel(); conn.Close() }}
}

func (c *caller) say(r *delta.Request) {
	c.t.Helper()
	if err := c.SendMsg(r); err != nil {
		c.t.Fatal(err)
	}
}

func (c *caller) subscribe(ns string, types ...string) {
	for _, typ := range types {
		c.say(&delta.Request{TypeUrl: typ, Node: &discovery.Node{Id: "ztunnel~10.0.0.1~pod." + ns + "~" + ns + ".svc.cluster.local"}})
	}
}

// hear reads a response in short: type, nonce, names.
func (c *caller) hear(want string) *delta.Response {
	c.t.Helper()
	r := &delta.Response{}
	if err := c.RecvMsg(r); err != nil {
		c.t.Fatalf("want %q: %v", want, err)
	}
	words := []string{r.GetTypeUrl(), r.GetNonce()}
	for _, x := range r.GetResources() {
		words = append(words, x.GetName()+"@"+x.GetVersion())
	}
	for _, n := range r.GetRemovedResources() {
		words = append(words, "-"+n)
	}
	if got := strings.Join(words, " "); got != want {
		c.t.Errorf("heard %q, want %q", got, want)
	}
	return r
}

func (c *caller) ack(r *delta.Response) {
	c.say(&delta.Request{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()})
}

// ended reads the stream's end.
func (c *caller) ended(want codes.Code) {
	c.t.Helper()
	if err := c.RecvMsg(&delta.Response{}); status.Code(err) != want {
		c.t.Errorf("stream ended with %v, want %v", err, want)
	}
}

func TestAnEarlierTypeIsHeardFirst(t *testing.T) {
	in(t, func(t *testing.T, p *plane) {
		p.policies.Put(thing("deny", "1"))
		c := p.call("a")
		defer c.end()
		c.subscribe("a", "policy", "thing")
		first := c.hear("policy 1 deny@1")
		c.ack(c.hear("thing 1"))
		// While a policy response is unanswered, one wave changes both types: the thing refers to the policy.
		p.graph.Change(func(w *collection.Wave) {
			p.things.Upsert(w, thing("pod", "1"))
			p.policies.Upsert(w, thing("deny", "2"))
		})
		synctest.Wait()
		if s := p.xds.Subscribers()[0].Types["thing"]; s.Sent != "1" {
			t.Errorf("the thing was sent before the policy that it refers to: %+v", s)
		}
		c.ack(first)
		c.ack(c.hear("policy 2 deny@2"))
		c.ack(c.hear("thing 2 pod@1"))
	})
}

// How long changes took to leave and to be taken in counts from the change, not from when there was time for it.
func TestDelaysAreMeasuredFromTheChange(t *testing.T) {
	in(t, func(t *testing.T, p *plane) {
		p.policies.Put(thing("deny", "1"))
		c := p.call("a")
		defer c.end()
		c.subscribe("a", "policy")
		first := c.hear("policy 1 deny@1")
		time.Sleep(2 * time.Second)
		p.policies.Put(thing("deny", "2"))
		synctest.Wait()
		if h := p.xds.Holders("policy", "deny"); len(h) != 1 || h[0].Latest {
			t.Errorf("holders %+v of a version that waits", h)
		}
		time.Sleep(3 * time.Second)
		c.ack(first)
		second := c.hear("policy 2 deny@2")
		time.Sleep(time.Second)
		c.ack(second)
		synctest.Wait()
		for i, want := range []struct{ waited, after time.Duration }{{0, 5 * time.Second}, {3 * time.Second, 4 * time.Second}} {
			if s, h := <-p.sent, <-p.heard; s.Waited != want.waited || s.Resources != 1 || s.Bytes == 0 || h.After != want.after || h.Refused {
				t.Errorf("response %d: %+v %+v, want %+v", i+1, s, h, want)
			}
		}
	})
}

// Through tells which changes a subscriber surely knows of, whether they concerned it or not.
func TestThrough(t *testing.T) {
	in(t, func(t *testing.T, p *plane) {
		p.policies.Put(thing("deny", "1"))
		c := p.call("a")
		defer c.end()
		c.subscribe("a", "policy")
		through := func() time.Time {
			synctest.Wait()
			return p.xds.Subscribers()[0].Types["policy"].Through
		}
		first := c.hear("policy 1 deny@1")
		if got := through(); !got.IsZero() {
			t.Errorf("nothing is answered, and it knows all up to %v", got)
		}
		time.Sleep(time.Second)
		p.policies.Put(thing("deny", "2"))
		changed := time.Now()
		time.Sleep(time.Second)
		c.ack(first)
		second := c.hear("policy 2 deny@2")
		if got := through(); !got.Before(changed) {
			t.Errorf("the first answer, and it knows the second change of %v up to %v", changed, got)
		}
		time.Sleep(time.Second)
		p.policies.Put(thing("deny", "3"))
		later := time.Now()
		c.ack(second)
		third := c.hear("policy 3 deny@3")
		if got := through(); got.Before(changed) || !got.Before(later) {
			t.Errorf("the second answer: %v, changes at %v and %v", got, changed, later)
		}
		c.ack(third)
		time.Sleep(time.Second)
		p.things.Put(thing("x", "1")) // of a type that it has not asked for
		if got := through(); !got.Equal(time.Now()) {
			t.Errorf("nothing waits for it, and it knows up to %v", got)
		}
	})
}

func TestProgressIsReported(t *testing.T) {
	in(t, func(t *testing.T, p *plane) {
		p.policies.Put(thing("deny", "1"))
		c := p.call("a")
		c.subscribe("a", "policy")
		first := c.hear("policy 1 deny@1")
		node := "ztunnel~10.0.0.1~pod.a~a.svc.cluster.local"
		holders := func(want ...Holder[string]) {
			t.Helper()
			synctest.Wait()
			if got := p.xds.Holders("policy", "deny"); !slices.Equal(got, want) {
				t.Errorf("holders %+v, want %+v", got, want)
			}
		}
		holders(Holder[string]{Caller: "a", Node: node, Version: "1", Latest: true})
		c.ack(first)
		holders(Holder[string]{Caller: "a", Node: node, Version: "1", Latest: true, Accepted: true})
		if r := <-p.reports; r.Node != node || r.Types["policy"].Acked != "1" || !r.Types["policy"].AnsweredAt.Equal(time.Now()) {
			t.Errorf("report %+v", r)
		}
		p.policies.Put(thing("deny", "2"))
		second := c.hear("policy 2 deny@2")
		c.say(&delta.Request{TypeUrl: "policy", ResponseNonce: second.GetNonce(), ErrorDetail: &discovery.Status{Message: "deny is not understood"}})
		holders(Holder[string]{Caller: "a", Node: node, Version: "2", Latest: true, Refused: true, Nack: "deny is not understood"})
		if r := <-p.reports; r.Types["policy"].Nack == "" || r.Types["policy"].Acked != "1" || !slices.Equal(r.Types["policy"].Behind, []string{"deny"}) {
			t.Errorf("report %+v", r)
		}
		p.policies.Put(thing("deny", "3"))
		c.ack(c.hear("policy 3 deny@3"))
		if r := <-p.reports; r.Types["policy"].Nack != "" || len(r.Types["policy"].Behind) > 0 {
			t.Errorf("report %+v", r)
		}
		c.end()
		holders()
		if r := <-p.reports; r.Open {
			t.Errorf("last report %+v says that the stream is open", r)
		}
	})
}

// What a refusal says is shown to people: bounded, and without what a terminal would obey (XD-18).
func TestXD18ReasonsArePlain(t *testing.T) {
	in(t, func(t *testing.T, p *plane) {
		p.policies.Put(thing("deny", "1"))
		c := p.call("a")
		defer c.end()
		c.subscribe("a", "policy")
		r := c.hear("policy 1 deny@1")
		c.say(&delta.Request{TypeUrl: "policy", ResponseNonce: r.GetNonce(), ErrorDetail: &discovery.Status{Message: "\x1b[31mbad\n%s" + strings.Repeat("x", 1<<20)}})
		synctest.Wait()
		nack := p.xds.Subscribers()[0].Types["policy"].Nack
		if !strings.HasPrefix(nack, "[31mbad %sxxx") || len(nack) > 1100 {
			t.Errorf("%d bytes: %.40q", len(nack), nack)
		}
	})
}

// One caller cannot take all there is by ever more streams.
func TestStreamsOfOneCallerAreBounded(t *testing.T) {
	in(t, func(t *testing.T, p *plane) {
		p.xds.conf.Key = func(who string) string { return who }
		for range maxStreams {
			c := p.call("a")
			defer c.end()
			c.subscribe("a", "policy")
			c.hear("policy 1")
		}
		over := p.call("a")
		defer over.end()
		over.ended(codes.ResourceExhausted)
		other := p.call("b")
		defer other.end()
		other.subscribe("b", "policy")
		other.hear("policy 1")
	})
}

// XD-01: without credentials, or with more bytes than anybody may send before them, nothing is read and nothing told.
func TestXD01NoCredentials(t *testing.T) {
	in(t, func(t *testing.T, p *plane) {
		p.things.Put(thing("secret", "1"))
		c := p.call("")
		defer c.end()
		c.ended(codes.Unauthenticated)
		if n := len(p.xds.Subscribers()); n != 0 {
			t.Errorf("%d subscribers", n)
		}
	})
}

// XD-02: a caller cannot call itself by another's node, not even later on its stream.
func TestXD02ForeignNode(t *testing.T) {
	in(t, func(t *testing.T, p *plane) {
		c := p.call("a")
		defer c.end()
		c.subscribe("b", "thing")
		c.ended(codes.PermissionDenied)

		later := p.call("a")
		defer later.end()
		later.subscribe("a", "thing")
		later.hear("thing 1")
		later.subscribe("b", "policy")
		later.ended(codes.PermissionDenied)
	})
}

func TestAnUnknownTypeEndsTheStream(t *testing.T) {
	in(t, func(t *testing.T, p *plane) {
		c := p.call("a")
		defer c.end()
		c.subscribe("a", "nonsense")
		c.ended(codes.InvalidArgument)
	})
}
