package server

import (
	"cmp"
	"context"
	"errors"
	"io"
	"iter"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ambit-mesh/ambit/xds/delta"
)

// Subscriber is what is known of a connected client.
type Subscriber[C any] struct {
	ID        uint64
	Caller    C
	Node      string
	Connected time.Time
	// Types by URL.
	Types map[string]delta.Status
}

func sortByID[C any](all []Subscriber[C]) {
	slices.SortFunc(all, func(a, b Subscriber[C]) int { return cmp.Compare(a.ID, b.ID) })
}

// subscriber is one open stream. Only its own goroutine touches machines.
type subscriber[C any] struct {
	s        *Server[C]
	id       uint64
	caller   C
	since    time.Time
	machines map[string]*delta.Server
	sent     map[string]time.Time // of the last response, by type
	wake     chan struct{}

	mu     sync.Mutex                     // guards below
	inbox  map[string]map[string]struct{} // type → names changed
	node   string
	status map[string]delta.Status
}

func newSubscriber[C any](s *Server[C], caller C) *subscriber[C] {
	return &subscriber[C]{
		s: s, caller: caller, since: time.Now(), machines: map[string]*delta.Server{}, sent: map[string]time.Time{},
		wake: make(chan struct{}, 1), inbox: map[string]map[string]struct{}{}, status: map[string]delta.Status{},
	}
}

// note coalesces changed names by type; it never blocks.
func (b *subscriber[C]) note(url string, names []string) {
	b.mu.Lock()
	if b.inbox[url] == nil {
		b.inbox[url] = map[string]struct{}{}
	}
	for _, n := range names {
		b.inbox[url][n] = struct{}{}
	}
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

func (b *subscriber[C]) nodeID() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.node
}

func (b *subscriber[C]) snapshot() Subscriber[C] {
	b.mu.Lock()
	defer b.mu.Unlock()
	types := make(map[string]delta.Status, len(b.status))
	for url, st := range b.status {
		types[url] = st
	}
	return Subscriber[C]{ID: b.id, Caller: b.caller, Node: b.node, Connected: b.since, Types: types}
}

// run serves the stream until it ends.
func (b *subscriber[C]) run(stream grpc.ServerStream) error {
	ctx := stream.Context()
	requests, ended := make(chan *delta.Request), make(chan error, 1)
	go func() { // ends with the stream, which gRPC ends when run returns
		ended <- receive(ctx, stream, requests)
	}()
	late := time.NewTicker(b.s.conf.AnswerTimeout / 4)
	defer late.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case now := <-late.C:
			if url := b.overdue(now); url != "" {
				return status.Errorf(codes.DeadlineExceeded, "subscriber does not answer: %s", url)
			}
			continue
		case err := <-ended:
			return err
		case r := <-requests:
			if err := b.take(r); err != nil {
				return err
			}
		case <-b.wake:
			b.collect()
		}
		if err := b.send(stream); err != nil {
			return err
		}
	}
}

func receive(ctx context.Context, stream grpc.ServerStream, to chan<- *delta.Request) error {
	for {
		r := &delta.Request{}
		if err := stream.RecvMsg(r); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		select {
		case to <- r:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (b *subscriber[C]) take(r *delta.Request) error {
	if _, err := b.s.typ(r.GetTypeUrl()); err != nil {
		return err
	}
	b.mu.Lock()
	if id := r.GetNode().GetId(); id != "" && b.node == "" {
		b.node = id
	}
	b.mu.Unlock()
	m, ok := b.machines[r.GetTypeUrl()]
	if !ok {
		m = delta.NewServer(r.GetTypeUrl())
		b.machines[r.GetTypeUrl()] = m
	}
	if d := r.GetErrorDetail(); d != nil {
		b.s.conf.Log.Warn("xds response refused", "node", b.nodeID(), "type", r.GetTypeUrl(), "error", d.GetMessage())
	}
	m.Receive(r)
	return nil
}

// collect moves noted names to their machines.
func (b *subscriber[C]) collect() {
	b.mu.Lock()
	inbox := b.inbox
	b.inbox = map[string]map[string]struct{}{}
	b.mu.Unlock()
	for url, names := range inbox {
		if m, ok := b.machines[url]; ok {
			for n := range names {
				m.Changed(n)
			}
		}
	}
}

// overdue names a type whose last response has not been answered in time.
func (b *subscriber[C]) overdue(now time.Time) string {
	for url, m := range b.machines {
		if st := m.Status(); st.Outstanding && now.Sub(b.sent[url]) > b.s.conf.AnswerTimeout {
			return url
		}
	}
	return ""
}

// send says what there is to say of every type. A subscriber that does not read or answer in time is dropped: at most
// one response per type is under way, so a slow one costs bounded memory.
func (b *subscriber[C]) send(stream grpc.ServerStream) error {
	for url, m := range b.machines {
		if resp := m.Next(view[C]{b.s.types[url], b.caller}); resp != nil {
			if err := sendWithin(stream, resp, b.s.conf.AnswerTimeout); err != nil {
				return err
			}
			b.sent[url] = time.Now()
		}
		b.mu.Lock()
		b.status[url] = m.Status()
		b.mu.Unlock()
	}
	return nil
}

func sendWithin(stream grpc.ServerStream, resp *delta.Response, limit time.Duration) error {
	sent := make(chan error, 1)
	go func() { sent <- stream.SendMsg(resp) }() // ends at the latest with the stream
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case err := <-sent:
		return err
	case <-t.C:
		return status.Error(codes.DeadlineExceeded, "subscriber does not read")
	}
}

// view shows a type to one caller.
type view[C any] struct {
	t      *served[C]
	caller C
}

// Names implements delta.View.
func (v view[C]) Names() iter.Seq[string] {
	return func(yield func(string) bool) {
		for name := range v.t.Resources.All() {
			if !yield(name) {
				return
			}
		}
	}
}

// Lookup implements delta.View. Of several resources that share an alias, the one whose name sorts first is meant.
func (v view[C]) Lookup(name string) (delta.Resource, bool) {
	if r, ok := v.t.Resources.Get(name); ok && v.sees(r) {
		return r, true
	}
	var found delta.Resource
	ok := false
	for _, r := range v.t.aliases.Lookup(name) {
		if v.sees(r) && (!ok || r.Name < found.Name) {
			found, ok = r, true
		}
	}
	return found, ok
}

func (v view[C]) sees(r delta.Resource) bool { return v.t.Visible == nil || v.t.Visible(v.caller, r) }
