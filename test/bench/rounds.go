package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/ambit-mesh/ambit/test/lab"
	"github.com/ambit-mesh/ambit/test/lab/figures"
)

// load is one kind of traffic.
type load struct {
	name string
	// argv of package load, after the address.
	argv []string
	// read turns what the client says into figures: how much of the unit was done, and what else it met.
	read func(ctx context.Context, w *world, l *lane, argv []string) (units float64, s sample, err error)
}

// sample is what one run met: a figure for each measure.
type sample map[figure]float64

// figure names a figure.
type figure string

// The measures. Those of CPU and allocations are of the proxies on the way, together.
const (
	speed   figure = "GB/s"
	perUnit figure = "CPU"
	p50     figure = "p50"
	p99     figure = "p99"
	rate    figure = "rate"
	allocs  figure = "allocs"
)

// loads are all kinds, each as much of it as asked for: 1 is a second or so of each.
func loads(much float64) []load {
	size, length, count := int64(much*(512<<20)), time.Duration(much*float64(time.Second)), int(1500*much)
	n := func(i int64) string { return strconv.FormatInt(i, 10) }
	return []load{
		{"bulk, 1 stream", []string{"bulk", "-bytes", n(size)}, bulk},
		{"bulk, 8 streams", []string{"bulk", "-conns", "8", "-bytes", n(size)}, bulk},
		{"128 B request/response, 1 connection", []string{"rr", "-for", length.String()}, trips},
		{"128 B request/response, 16 connections", []string{"rr", "-conns", "16", "-for", length.String()}, trips},
		{"new connections, 1 at a time", []string{"connect", "-count", n(int64(count))}, trips},
		{"new connections, 16 at a time", []string{"connect", "-conns", "16", "-count", n(int64(count) * 2)}, trips},
	}
}

func bulk(ctx context.Context, w *world, l *lane, argv []string) (float64, sample, error) {
	var b figures.Bulk
	err := w.Exec(ctx, l.client, &b, argv...)
	gb := float64(b.Bytes) / 1e9
	return gb, sample{speed: gb / b.Took.Seconds()}, err
}

func trips(ctx context.Context, w *world, l *lane, argv []string) (float64, sample, error) {
	var t figures.Trips
	err := w.Exec(ctx, l.client, &t, argv...)
	return float64(t.Count), sample{p50: micro(t.P50), p99: micro(t.P99), rate: float64(t.Count) / t.Took.Seconds()}, err
}

func micro(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// rounds runs every load on every lane, again and again. The first round warms up and does not count.
func (w *world) rounds(ctx context.Context, r *result) error {
	r.quiet.look()
	for round := range w.conf.rounds + 1 {
		w.say("round %d of %d", round, w.conf.rounds)
		for _, ld := range loads(w.conf.much) {
			if !w.conf.load.MatchString(ld.name) {
				continue
			}
			for i := range w.lanes {
				l := w.lanes[(i+round)%len(w.lanes)] // nobody is always the first
				s, err := w.once(ctx, l, ld)
				if err != nil {
					return fmt.Errorf("%s of %s: %w", ld.name, l.name, err)
				}
				if round > 0 {
					r.add(ld.name, l.name, s)
				}
			}
		}
		r.quiet.look()
	}
	return nil
}

// settling is how long after a load its proxies are still at work for it.
const settling = 50 * time.Millisecond

func (w *world) once(ctx context.Context, l *lane, ld load) (sample, error) {
	argv := append([]string{lab.Load, ld.argv[0], "-to", l.to}, ld.argv[1:]...)
	var mallocs, scrape float64
	if l.ours {
		first, err := w.mallocs(ctx, l)
		if err != nil {
			return nil, err
		}
		if mallocs, err = w.mallocs(ctx, l); err != nil {
			return nil, err
		}
		scrape = mallocs - first
	}
	before, err := l.cpu()
	if err != nil {
		return nil, err
	}
	units, s, err := ld.read(ctx, w, l, argv)
	if err != nil {
		return nil, err
	}
	time.Sleep(settling)
	after, err := l.cpu()
	if err != nil {
		return nil, err
	}
	if len(l.proxies) > 0 {
		s[perUnit] = (after - before).Seconds() / units
		if ld.argv[0] != "bulk" {
			s[perUnit] *= 1e6
		}
	}
	if l.ours {
		now, err := w.mallocs(ctx, l)
		if err != nil {
			return nil, err
		}
		s[allocs] = max(0, now-mallocs-scrape) / units
	}
	return s, nil
}

// verify compares the hashes of both ends, up and down, on every lane.
func (w *world) verify(ctx context.Context, r *result) error {
	for _, l := range w.lanes {
		for _, more := range [][]string{nil, {"-down"}, {"-conns", "8"}, {"-conns", "8", "-down"}} {
			argv := append([]string{lab.Load, "bulk", "-verify", "-to", l.to, "-bytes", strconv.Itoa(64 << 20)}, more...)
			var b figures.Bulk
			if err := w.Exec(ctx, l.client, &b, argv...); err != nil {
				return fmt.Errorf("%s: %w", l.name, err)
			}
			r.verified += b.Bytes
		}
	}
	return nil
}
