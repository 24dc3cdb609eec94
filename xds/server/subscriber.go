package server

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/ambit-mesh/ambit/collection"
	"github.com/ambit-mesh/ambit/xds/delta"
)

// subscriber is one open stream. Lock order: mu, then a collection's graph, then inboxMu: the graph holds its lock
// while it calls note.
type subscriber[C any] struct {
	s      *Server[C]
	id     uint64
	key    string
	caller C
	since  time.Time
	wake   chan struct{}

	mu        sync.Mutex // guards below
	machines  []machine  // by type
	node      string
	cluster   string // that it says it is in
	admitted  bool
	collected time.Time // when names were last moved from the inbox: what changed before is in the machines

	inboxMu sync.Mutex            // guards below
	inbox   []map[string]struct{} // names changed, by type
	noted   []time.Time           // when the first of them was, by type
}

// machine is one type's; its Server is nil until the subscriber asks for the type.
type machine struct {
	*delta.Server
	sent, answered time.Time
	since          time.Time // when the first change was noted, or the first request came, that is not sent; zero for none
	of             time.Time // since, of the last response
	made           time.Time // up to when the last response has every change
	through        time.Time // made, of the last response that was answered
}

func newSubscriber[C any](s *Server[C], caller C) *subscriber[C] {
	return &subscriber[C]{
		s: s, caller: caller, since: time.Now(), collected: time.Now(), machines: make([]machine, len(s.types)),
		wake: make(chan struct{}, 1), inbox: make([]map[string]struct{}, len(s.types)), noted: make([]time.Time, len(s.types)),
	}
}

// note coalesces changed names by type; it never blocks.
func (b *subscriber[C]) note(typ int, names []string) {
	b.inboxMu.Lock()
	if b.inbox[typ] == nil {
		b.inbox[typ], b.noted[typ] = map[string]struct{}{}, time.Now()
	}
	for _, n := range names {
		b.inbox[typ][n] = struct{}{}
	}
	b.inboxMu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// run serves the stream until it ends.
func (b *subscriber[C]) run(stream grpc.ServerStream) error {
	ctx := stream.Context()
	requests, ended := make(chan *delta.Request), make(chan error, 1)
	go func() { // ends with the stream, which gRPC ends when run returns
		ended <- receive(ctx, stream, requests)
	}()
	late := time.NewTicker(b.s.conf.AnswerTimeout / overdueChecks)
	defer late.Stop()
	for {
		select {
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
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

// take hands a request to its machine.
func (b *subscriber[C]) take(r *delta.Request) error {
	if err := b.admit(r); err != nil {
		return err
	}
	i := b.s.index(r.GetTypeUrl())
	if i < 0 {
		return status.Errorf(codes.InvalidArgument, "unknown resource type %q", r.GetTypeUrl())
	}
	b.mu.Lock()
	m := &b.machines[i]
	if m.Server == nil {
		m.Server = delta.NewServer(r.GetTypeUrl())
	}
	waited := m.Status().Outstanding
	err := m.Receive(r)
	answered := waited && !m.Status().Outstanding
	now := time.Now()
	heard := Heard{Type: r.GetTypeUrl(), Refused: r.GetErrorDetail() != nil, After: now.Sub(m.of)}
	if answered {
		m.answered, m.through = now, m.made
	}
	if m.since.IsZero() && (!answered || len(r.GetResourceNamesSubscribe()) > 0) {
		m.since = now
	}
	b.mu.Unlock()
	if err != nil {
		return status.Error(codes.ResourceExhausted, err.Error())
	}
	if d := r.GetErrorDetail(); d != nil && answered {
		b.s.conf.Log.Warn("xds response refused", "node", b.nodeID(), "type", r.GetTypeUrl(), "error", d.GetMessage())
	}
	if answered {
		b.s.conf.Heard(heard)
		b.report(true)
	}
	return nil
}

// maxWord is the longest name that a node may give itself.
const maxWord = 1 << 10

// admit looks at who the first request says it is from; later ones cannot say otherwise.
func (b *subscriber[C]) admit(r *delta.Request) error {
	id := r.GetNode().GetId()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.admitted {
		if id != "" && id != b.node {
			return status.Error(codes.PermissionDenied, "a stream cannot change its node")
		}
		return nil
	}
	if len(id) > maxWord {
		return status.Error(codes.InvalidArgument, "the node's id is too long")
	}
	if b.s.conf.Admit != nil {
		if err := b.s.conf.Admit(b.caller, r.GetNode()); err != nil {
			b.s.conf.Log.Warn("xds node refused", "node", id, "caller", b.caller, "error", err)
			return status.Error(codes.PermissionDenied, "not allowed to act as this node")
		}
	}
	b.admitted, b.node = true, id
	b.cluster = r.GetNode().GetMetadata().GetFields()["CLUSTER_ID"].GetStringValue()
	if len(b.cluster) > maxWord {
		b.cluster = ""
	}
	return nil
}

// collect moves noted names to their machines.
func (b *subscriber[C]) collect() {
	var inbox []map[string]struct{}
	var noted []time.Time
	var at time.Time
	collection.Still(b.s.types[0].Resources, func() { // whole waves only: see Config.Types
		b.inboxMu.Lock()
		defer b.inboxMu.Unlock()
		at = time.Now()
		inbox, b.inbox = b.inbox, make([]map[string]struct{}, len(b.inbox))
		noted, b.noted = b.noted, make([]time.Time, len(b.noted))
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.collected = at
	for i, names := range inbox {
		// A type not subscribed to is looked at as a whole once it is.
		if m := &b.machines[i]; m.Server != nil && len(names) > 0 {
			for n := range names {
				m.Changed(n)
			}
			if m.since.IsZero() {
				m.since = noted[i]
			}
		}
	}
}

// overdueChecks is how often, within the time to answer, it is looked at: one of them early at most.
const overdueChecks = 12

// overdue names a type whose last response has not been answered in time.
func (b *subscriber[C]) overdue(now time.Time) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, m := range b.machines {
		if m.Server != nil && m.Status().Outstanding && now.Sub(m.sent) > b.s.conf.AnswerTimeout*(overdueChecks-1)/overdueChecks {
			return b.s.types[i].URL
		}
	}
	return ""
}

// send says what there is to say, type by type. A subscriber that does not read or answer in time is dropped: at most
// one response per type is under way, so a slow one costs bounded memory.
func (b *subscriber[C]) send(stream grpc.ServerStream) error {
	for i := range b.machines {
		resp, more := b.next(i)
		if resp != nil {
			begin := time.Now()
			if err := sendWithin(stream, resp, b.s.conf.AnswerTimeout); err != nil {
				return err
			}
			now := time.Now()
			b.mu.Lock()
			m := &b.machines[i]
			m.sent = now
			waited := begin.Sub(m.of)
			b.mu.Unlock()
			b.s.conf.Sent(Sent{
				Type: resp.GetTypeUrl(), Resources: len(resp.GetResources()), Removed: len(resp.GetRemovedResources()),
				Bytes: proto.Size(resp), Waited: waited, Took: now.Sub(begin),
			})
		}
		if more {
			return nil
		}
	}
	return nil
}

// next makes a type's response; more tells that the type has more to say after an answer that has not come.
func (b *subscriber[C]) next(typ int) (resp *delta.Response, more bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := &b.machines[typ]
	if m.Server == nil {
		return nil, false
	}
	resp = m.Next(view[C]{b.s.types[typ], b.caller})
	switch {
	case resp != nil:
		m.made = b.collected
		if m.of = m.since; m.of.IsZero() {
			m.of = time.Now()
		}
		m.since = time.Time{}
	case !m.Pending():
		m.since = time.Time{} // what changed does not concern it
	}
	return resp, m.Pending()
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
