package server

import (
	"time"

	"github.com/ambit-mesh/ambit/collection"
	"github.com/ambit-mesh/ambit/xds/delta"
)

// Subscriber is what is known of a client.
type Subscriber[C any] struct {
	ID        uint64
	Caller    C
	Node      string // its id, as it calls itself
	Cluster   string // where it says it is
	Connected time.Time
	// Open is false in the last report of a stream that has ended.
	Open bool
	// Types by URL: those that it has subscribed to.
	Types map[string]Progress
}

// Progress is how far a subscriber is with one type.
type Progress struct {
	delta.Status
	// SentAt and AnsweredAt are when the last response left and when the last answer came; zero for never.
	SentAt, AnsweredAt time.Time
	// Through is up to when it knows of every change: those before it were part of what it has answered.
	Through time.Time
}

// Sent is a response that has left.
type Sent struct {
	Type               string
	Resources, Removed int
	Bytes              int
	Waited             time.Duration // since the first of its changes, or since it was asked for
	Took               time.Duration // to write it
}

// Heard is an answer to a response.
type Heard struct {
	Type    string
	Refused bool
	After   time.Duration // since the first of the response's changes
}

// Holder is a subscriber that has been sent a resource.
type Holder[C any] struct {
	Caller  C
	Node    string
	Version string
	// Latest tells whether this is the version that there is now.
	Latest bool
	// Accepted tells whether it has acknowledged this version, Refused whether it came in a response that it refused. Nack
	// is its reason if it refused anything.
	Accepted, Refused bool
	Nack              string
}

func (b *subscriber[C]) nodeID() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.node
}

func (b *subscriber[C]) snapshot() Subscriber[C] {
	b.mu.Lock()
	defer b.mu.Unlock()
	waiting := make([]bool, len(b.machines))
	var at time.Time
	collection.Still(b.s.types[0].Resources, func() {
		b.inboxMu.Lock()
		defer b.inboxMu.Unlock()
		at = time.Now()
		for i, names := range b.inbox {
			waiting[i] = len(names) > 0
		}
	})
	types := make(map[string]Progress, len(b.machines))
	for i, m := range b.machines {
		if m.Server != nil {
			p := Progress{Status: m.Status(), SentAt: m.sent, AnsweredAt: m.answered, Through: m.through}
			if !p.Outstanding && m.since.IsZero() && !waiting[i] {
				p.Through = at // nothing that changed since concerns it
			}
			types[b.s.types[i].URL] = p
		}
	}
	return Subscriber[C]{ID: b.id, Caller: b.caller, Node: b.node, Cluster: b.cluster, Connected: b.since, Open: true, Types: types}
}

func (b *subscriber[C]) holds(typ int, name string) (Holder[C], bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := &b.machines[typ]
	if m.Server == nil {
		return Holder[C]{}, false
	}
	version, accepted := m.Holding(name)
	if version == "" {
		return Holder[C]{}, false
	}
	return Holder[C]{Caller: b.caller, Node: b.node, Version: version, Accepted: accepted, Refused: m.Refuses(name), Nack: m.Status().Nack}, true
}

// report tells whoever wants to know how far this subscriber is.
func (b *subscriber[C]) report(open bool) {
	if b.s.conf.Answered != nil {
		now := b.snapshot()
		now.Open = open
		b.s.conf.Answered(now)
	}
}
