package memory

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Every is how often Keep looks: the start, and a burst, are over when so long little happened.
const Every = 5 * time.Second

// Keep gives memory back whenever the program has become calm after work, until ctx ends: after its start, and after
// each burst. The runtime itself would keep most of it for minutes. failed is told what could not be given back.
//
// While there is work, the collector lets the heap grow by room, not by the few percent that keep an idle program small:
// with a small heap it would run thirty times a second. percent is that for calm, as of GOGC; 0 leaves the collector alone.
func Keep(ctx context.Context, percent int, failed func(error)) error {
	tick := time.NewTicker(Every)
	defer tick.Stop()
	k := keeper{busy: true, last: read()}
	pace := percent
	set := func(to int) {
		if percent > 0 && pace != to {
			debug.SetGCPercent(to)
			pace = to
		}
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := read()
		calm := k.calm(now)
		if k.busy {
			set(paceFor(now.live, percent))
		}
		if !calm {
			continue
		}
		set(percent)
		runtime.GC() // what pools hold is free after the second collection, which is Free's
		if err := Free(); err != nil {
			failed(err)
		}
		k.last = read()
		k.kept = k.last.free
	}
}

// reading is what the runtime tells, in bytes.
type reading struct {
	allocated uint64 // in all, since the start
	free      uint64 // of the heap, not given back
	live      uint64 // of the heap, after the last collection
}

func read() reading {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/memory/classes/heap/free:bytes"}, {Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	return reading{s[0].Value.Uint64(), s[1].Value.Uint64(), s[2].Value.Uint64()}
}

const (
	work   = 8 << 20 // allocated between two looks: there is work, and there will be garbage
	little = 1 << 20 // allocated between two looks: calm
	much   = 4 << 20 // free: worth a collection
)

// room is how much garbage may lie about while there is work.
const room = 16 << 20

// paceFor is the percentage of the live heap by which it may grow: room, and no less than percent.
func paceFor(live uint64, percent int) int {
	const least = 4 << 20 // the runtime takes a smaller heap for as much
	return max(percent, int(room*100/max(live, least)))
}

// keeper decides when memory is given back.
type keeper struct {
	busy bool // since memory was given back
	last reading
	kept uint64 // free, right after it was given back
}

func (k *keeper) calm(now reading) bool {
	d := now.allocated - k.last.allocated
	k.last = now
	if d > work {
		k.busy = true
	}
	if d > little || !k.busy && now.free < k.kept+much {
		return false
	}
	k.busy = false
	return true
}
