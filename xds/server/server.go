// Package server serves collections of resources over incremental discovery.
package server

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ambit-mesh/ambit/api/discovery"
	"github.com/ambit-mesh/ambit/collection"
	"github.com/ambit-mesh/ambit/xds/delta"
)

// Type is one kind of resource that can be subscribed to.
type Type[C any] struct {
	URL       string
	Resources collection.Collection[delta.Resource]
	// Visible says whether a caller may see a resource; nil means every caller may. It must depend on nothing else:
	// it is asked again only when the resource changes.
	Visible func(C, delta.Resource) bool
}

// Config of a Server. C is who a caller is.
type Config[C any] struct {
	// Authenticate tells who calls, from the stream's context, before anything is read. Its error ends the stream.
	Authenticate func(context.Context) (C, error)
	// Admit says whether a caller may call itself by the node of its first request; nil admits all. Its error ends the
	// stream before anything is sent, and its text stays here.
	Admit func(C, *discovery.Node) error
	// Key tells subscribers apart that share a bound: of one key at most maxStreams are served at once. Nil bounds nothing.
	Key func(C) string
	// Types, of one graph, in the order in which changes of one wave are sent: what others refer to comes first. A
	// subscriber that still has a response of an earlier type to answer, and more to hear of it, hears of later types
	// after that.
	Types []Type[C]
	// AnswerTimeout is how long a subscriber may leave a response unread or unanswered before it is dropped. Default 60s.
	AnswerTimeout time.Duration
	// Answered is told of each ACK and NACK and of each end, for whoever shows or waits for progress; it must not block.
	// May be nil.
	Answered func(Subscriber[C])
	// Sent and Heard are told of each response that has left and of each answer to one, for metrics; they must not block.
	// May be nil.
	Sent  func(Sent)
	Heard func(Heard)
	Log   *slog.Logger
}

// Server is the discovery service.
type Server[C any] struct {
	conf  Config[C]
	types []*served[C]
	stop  []func()

	mu   sync.Mutex // guards below
	subs map[*subscriber[C]]struct{}
	seq  uint64
}

// New makes a server that follows the given collections until Close.
func New[C any](conf Config[C]) *Server[C] {
	if conf.AnswerTimeout == 0 {
		conf.AnswerTimeout = time.Minute
	}
	if conf.Sent == nil {
		conf.Sent = func(Sent) {}
	}
	if conf.Heard == nil {
		conf.Heard = func(Heard) {}
	}
	s := &Server[C]{conf: conf, subs: map[*subscriber[C]]struct{}{}}
	for i, t := range conf.Types {
		s.types = append(s.types, &served[C]{Type: t, aliases: collection.NewIndex(t.Resources, func(r delta.Resource) []string { return slices.Concat(r.Aliases, r.With) })})
		s.stop = append(s.stop, t.Resources.Watch(func(es []collection.Event[delta.Resource]) {
			names := make([]string, len(es))
			for i, e := range es {
				names[i] = e.Key
			}
			s.changed(i, names)
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

// Register puts the service on a gRPC server. Give that server Options.
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
func (s *Server[C]) changed(typ int, names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for sub := range s.subs {
		sub.note(typ, names)
	}
}

func (s *Server[C]) serve(stream grpc.ServerStream) error {
	caller, err := s.conf.Authenticate(stream.Context())
	if err != nil {
		s.conf.Log.Warn("xds caller refused", "error", err)
		return status.Error(codes.Unauthenticated, "authentication failed")
	}
	sub, ok := s.enter(caller)
	if !ok {
		s.conf.Log.Warn("xds caller refused: it has too many streams", "caller", caller, "most", maxStreams)
		return status.Error(codes.ResourceExhausted, "too many streams")
	}
	err = sub.run(stream)
	s.mu.Lock()
	delete(s.subs, sub)
	s.mu.Unlock()
	sub.report(false)
	if err != nil && !errors.Is(err, context.Canceled) && status.Code(err) != codes.Canceled {
		s.conf.Log.Warn("xds stream ended", "node", sub.nodeID(), "error", err)
	}
	return err
}

// enter takes in a subscriber, unless there are too many of its key.
func (s *Server[C]) enter(caller C) (*subscriber[C], bool) {
	sub := newSubscriber(s, caller)
	if s.conf.Key != nil {
		sub.key = s.conf.Key(caller)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	same := 0
	for other := range s.subs {
		if sub.key != "" && other.key == sub.key {
			same++
		}
	}
	if same >= maxStreams {
		return nil, false
	}
	s.seq++
	sub.id = s.seq
	s.subs[sub] = struct{}{}
	return sub, true
}

func (s *Server[C]) all() []*subscriber[C] {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*subscriber[C], 0, len(s.subs))
	for sub := range s.subs {
		all = append(all, sub)
	}
	slices.SortFunc(all, func(a, b *subscriber[C]) int { return cmp.Compare(a.id, b.id) })
	return all
}

// Subscribers tells who is connected and how far each is, in order of arrival. It must not be called from a collection's
// functions or watchers.
func (s *Server[C]) Subscribers() []Subscriber[C] {
	subs := s.all()
	out := make([]Subscriber[C], len(subs))
	for i, sub := range subs {
		out[i] = sub.snapshot()
	}
	return out
}

// Holders tells which subscribers have been sent a resource, in which version, and whether they accepted it.
// It must not be called from a collection's functions or watchers.
func (s *Server[C]) Holders(typeURL, name string) []Holder[C] {
	i := s.index(typeURL)
	if i < 0 {
		return nil
	}
	now, _ := s.types[i].Resources.Get(name)
	var out []Holder[C]
	for _, sub := range s.all() {
		if h, ok := sub.holds(i, name); ok {
			h.Latest = h.Version == now.Version
			out = append(out, h)
		}
	}
	return out
}

func (s *Server[C]) index(url string) int {
	return slices.IndexFunc(s.types, func(t *served[C]) bool { return t.URL == url })
}
