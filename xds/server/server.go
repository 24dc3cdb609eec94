// Package server serves collections of resources over incremental discovery.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ambit-mesh/ambit/collection"
	"github.com/ambit-mesh/ambit/xds/delta"
)

// Type is one kind of resource that can be subscribed to.
type Type[C any] struct {
	URL       string
	Resources collection.Collection[delta.Resource]
	// Visible says whether a caller may see a resource; nil means every caller may.
	Visible func(C, delta.Resource) bool
}

// Config of a Server. C is who a caller is.
type Config[C any] struct {
	// Authenticate tells who calls, from the stream's context, before anything is read. Its error ends the stream.
	Authenticate func(context.Context) (C, error)
	Types        []Type[C]
	// AnswerTimeout is how long a subscriber may leave a response unread or unanswered before it is dropped. Default 60s.
	AnswerTimeout time.Duration
	Log           *slog.Logger
}

// Server is the discovery service.
type Server[C any] struct {
	conf  Config[C]
	types map[string]*served[C]
	stop  []func()

	mu   sync.Mutex // guards below
	subs map[*subscriber[C]]struct{}
	seq  uint64
}

// served is a type with its index of aliases.
type served[C any] struct {
	Type[C]
	aliases *collection.Index[string, delta.Resource]
}

// New makes a server that follows the given collections until Close.
func New[C any](conf Config[C]) *Server[C] {
	if conf.AnswerTimeout == 0 {
		conf.AnswerTimeout = time.Minute
	}
	s := &Server[C]{conf: conf, types: map[string]*served[C]{}, subs: map[*subscriber[C]]struct{}{}}
	for _, t := range conf.Types {
		s.types[t.URL] = &served[C]{Type: t, aliases: collection.NewIndex(t.Resources, func(r delta.Resource) []string { return r.Aliases })}
		s.stop = append(s.stop, t.Resources.Watch(func(es []collection.Event[delta.Resource]) {
			names := make([]string, len(es))
			for i, e := range es {
				names[i] = e.Key
			}
			s.changed(t.URL, names)
		}))
	}
	return s
}

// Close stops following the collections; open streams end with the gRPC server that carries them.
func (s *Server[C]) Close() {
	for _, stop := range s.stop {
		stop()
	}
}

// Register puts the service on a gRPC server.
func (s *Server[C]) Register(g *grpc.Server) {
	g.RegisterService(&grpc.ServiceDesc{
		ServiceName: "envoy.service.discovery.v3.AggregatedDiscoveryService",
		HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{
			StreamName: "DeltaAggregatedResources", ServerStreams: true, ClientStreams: true,
			Handler: func(_ any, stream grpc.ServerStream) error { return s.serve(stream) },
		}},
	}, s)
}

// changed runs inside a wave of the collections: it only notes names.
func (s *Server[C]) changed(url string, names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for sub := range s.subs {
		sub.note(url, names)
	}
}

func (s *Server[C]) serve(stream grpc.ServerStream) error {
	caller, err := s.conf.Authenticate(stream.Context())
	if err != nil {
		s.conf.Log.Warn("xds caller refused", "error", err)
		return status.Error(codes.Unauthenticated, "authentication failed")
	}
	sub := newSubscriber(s, caller)
	s.mu.Lock()
	s.seq++
	sub.id = s.seq
	s.subs[sub] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.subs, sub)
		s.mu.Unlock()
	}()
	err = sub.run(stream)
	if err != nil && !errors.Is(err, context.Canceled) {
		s.conf.Log.Warn("xds stream ended", "node", sub.nodeID(), "error", err)
	}
	return err
}

// Subscribers tells who is connected and how far each is, in order of arrival.
func (s *Server[C]) Subscribers() []Subscriber[C] {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Subscriber[C], 0, len(s.subs))
	for sub := range s.subs {
		all = append(all, sub.snapshot())
	}
	sortByID(all)
	return all
}

func (s *Server[C]) typ(url string) (*served[C], error) {
	t, ok := s.types[url]
	if !ok {
		return nil, status.Error(codes.InvalidArgument, fmt.Sprintf("unknown resource type %q", url))
	}
	return t, nil
}
