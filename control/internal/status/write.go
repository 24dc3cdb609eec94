package status

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/collection"
	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// Writer takes objects that have only metadata and status.
type Writer interface {
	Apply(ctx context.Context, o kinds.Object) error
	Delete(ctx context.Context, k kinds.Kind, namespace, name string) error
	Read(ctx context.Context, k kinds.Kind, namespace, name string) (kinds.Object, error)
}

// retry is how long what could not be written waits.
const retry = 5 * time.Second

// Keep writes every status of a collection, and what becomes of them, until ctx ends.
func Keep(ctx context.Context, all collection.Collection[Status], to Writer, log *slog.Logger) error {
	k := keeper{to: to, log: log, news: make(chan struct{}, 1), changed: map[string]change{}, since: map[string]map[string]held{}}
	stop := all.Watch(k.note)
	defer stop()
	again := time.NewTicker(retry)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-k.news:
		case <-again.C:
		}
		k.write(ctx, time.Now())
	}
}

type keeper struct {
	to    Writer
	log   *slog.Logger
	news  chan struct{}
	since map[string]map[string]held // by status and type of condition; owned by Keep

	mu      sync.Mutex        // guards below
	changed map[string]change // coalesced by object
}

type change struct {
	status Status
	gone   bool
}

// remember takes over since when conditions hold from what was written before a restart.
func (k *keeper) remember(ctx context.Context, key string, s Status) error {
	k.since[key] = map[string]held{}
	namespace, name := s.Ref.Names()
	o, err := k.to.Read(ctx, s.Ref.Kind, namespace, name)
	if err != nil || o == nil {
		return err
	}
	k.since[key] = conditions(o)
	return nil
}

// held is since when a condition is true or false.
type held struct {
	is   bool
	from time.Time
}

func (k *keeper) note(es []collection.Event[Status]) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, e := range es {
		if e.New != nil && e.New.Awaited {
			delete(k.changed, e.Key) // what was said before stands until there is something to say
		} else if e.New != nil {
			k.changed[e.Key] = change{status: *e.New}
		} else if e.Old != nil {
			k.changed[e.Key] = change{status: *e.Old, gone: true}
		}
	}
	select {
	case k.news <- struct{}{}:
	default:
	}
}

func (k *keeper) take() map[string]change {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := k.changed
	k.changed = map[string]change{}
	return out
}

// giveBack keeps what could not be written for later, unless something newer came.
func (k *keeper) giveBack(key string, c change) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, newer := k.changed[key]; !newer {
		k.changed[key] = c
	}
}

func (k *keeper) write(ctx context.Context, now time.Time) {
	todo := k.take()
	for _, key := range slices.Sorted(maps.Keys(todo)) {
		c := todo[key]
		if err := k.one(ctx, key, c, now); err != nil {
			k.log.Error("status not written, will retry", "object", key, "error", err)
			k.giveBack(key, c)
		}
	}
}

func (k *keeper) one(ctx context.Context, key string, c change, now time.Time) error {
	if c.gone {
		delete(k.since, key)
		namespace, name := c.status.Ref.Names()
		return k.to.Delete(ctx, c.status.Ref.Kind, namespace, name)
	}
	if _, seen := k.since[key]; !seen {
		if err := k.remember(ctx, key, c.status); err != nil {
			k.log.Warn("what was said of an object before is not known, its conditions begin now", "object", key, "error", err)
		}
	}
	o, err := c.status.object(func(is Condition) time.Time {
		if h, ok := k.since[key][is.Type]; ok && h.is == is.True {
			return h.from
		}
		k.since[key][is.Type] = held{is.True, now.Truncate(time.Second)}
		return now.Truncate(time.Second)
	})
	if err != nil {
		return err
	}
	return k.to.Apply(ctx, o)
}
