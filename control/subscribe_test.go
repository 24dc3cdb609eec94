package control_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"maps"
	"net"
	"slices"
	"sync"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/ambit-mesh/ambit/api/discovery"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/xds/delta"
)

const ztunnelNode = "ztunnel~10.244.1.2~ztunnel-1.istio-system~istio-system.svc.cluster.local"

// subscriber is a proxy that takes in everything it is sent, and counts.
type subscriber struct {
	v      *virtual
	stream grpc.ClientStream
	end    func()

	mu    sync.Mutex                   // guards below
	held  map[string]map[string]string // by type: versions by name
	bytes map[string]int               // by type, since the last settle
	sent  map[string][]string          // by type: names of resources since the last settle
	gone  map[string][]string
	order []string // types, in order of arrival
	nack  func(*delta.Response) string
	// slow delays each answer; heard is told of each response before it. May be nil.
	slow  func()
	heard func(*delta.Response)
}

// subscribe opens a stream and subscribes to all policies and addresses; had are the versions of an earlier stream.
func (v *virtual) subscribe(token, node string, had ...map[string]map[string]string) *subscriber {
	v.t.Helper()
	return v.subscribeWith(&subscriber{}, token, node, had...)
}

func (v *virtual) subscribeWith(s *subscriber, token, node string, had ...map[string]map[string]string) *subscriber {
	v.t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(v.cluster.roots("istio-system")))
	conn, err := grpc.NewClient("passthrough:istiod",
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool, ServerName: mesh.IstiodHost})),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return v.xds.Dial(ctx) }))
	if err != nil {
		v.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(v.t.Context())
	stream, err := conn.NewStream(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token),
		&grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources")
	if err != nil {
		v.t.Fatal(err)
	}
	s.v, s.stream, s.held = v, stream, map[string]map[string]string{}
	s.reset()
	for _, url := range []string{mesh.TypeAuthorization, mesh.TypeAddress} {
		s.held[url] = map[string]string{}
		if len(had) > 0 {
			s.held[url] = had[0][url]
		}
		s.say(&delta.Request{Node: &discovery.Node{Id: node}, TypeUrl: url, InitialResourceVersions: s.held[url]})
	}
	responses := make(chan *delta.Response)
	go func() {
		defer close(responses)
		for {
			r := &delta.Response{}
			if stream.RecvMsg(r) != nil {
				return
			}
			select {
			case responses <- r:
			case <-ctx.Done():
				return
			}
		}
	}()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for r := range responses {
			s.take(r)
		}
	}()
	s.end = func() { cancel(); conn.Close(); <-done }
	return s
}

func (s *subscriber) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes, s.sent, s.gone, s.order = map[string]int{}, map[string][]string{}, map[string][]string{}, nil
}

func (s *subscriber) say(r *delta.Request) {
	if err := s.stream.SendMsg(r); err != nil {
		s.v.t.Error(err)
	}
}

func (s *subscriber) take(r *delta.Response) {
	if s.heard != nil {
		s.heard(r)
	}
	if s.slow != nil {
		s.slow()
	}
	url := r.GetTypeUrl()
	s.mu.Lock()
	s.order = append(s.order, url)
	s.bytes[url] += proto.Size(r)
	answer := &delta.Request{TypeUrl: url, ResponseNonce: r.GetNonce()}
	if s.nack != nil {
		if why := s.nack(r); why != "" {
			answer.ErrorDetail = &discovery.Status{Message: why}
		}
	}
	for _, x := range r.GetResources() {
		s.held[url][x.GetName()] = x.GetVersion()
		s.sent[url] = append(s.sent[url], x.GetName())
	}
	for _, name := range r.GetRemovedResources() {
		delete(s.held[url], name)
		s.gone[url] = append(s.gone[url], name)
	}
	s.mu.Unlock()
	_ = s.stream.SendMsg(answer) // a stream that has ended tells so by itself
}

// names are those of the resources that it holds of a type.
func (s *subscriber) names(url string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.held[url]))
}

// settle waits until there is nothing more to say, in a bubble.
func (s *subscriber) settle() { synctest.Wait() }
