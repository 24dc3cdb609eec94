package collection

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type item struct {
	Name, Group string
	N           int
}

func name(i item) string                           { return i.Name }
func same[T comparable](a, b T) bool               { return a == b }
func self(s string) string                         { return s }
func contents[T any](c Collection[T]) map[string]T { return maps.Collect(c.All()) }

func TestWatchGetsContentsThenBatchesInOrder(t *testing.T) {
	g := NewGraph()
	s := NewSet(g, name, same[item])
	s.Put(item{Name: "a", N: 1})
	var seen []string
	stop := s.Watch(func(es []Event[item]) {
		var b []string
		for _, e := range es {
			switch {
			case e.Old == nil:
				b = append(b, "+"+e.Key)
			case e.New == nil:
				b = append(b, "-"+e.Key)
			default:
				b = append(b, fmt.Sprintf("%s:%d>%d", e.Key, e.Old.N, e.New.N))
			}
		}
		seen = append(seen, strings.Join(b, " "))
	})
	s.Put(item{Name: "a", N: 2}, item{Name: "b"})
	s.Put(item{Name: "b"}) // equal: no event
	s.Drop("a", "unknown")
	stop()
	s.Drop("b")
	if diff := cmp.Diff([]string{"+a", "a:1>2 +b", "-a"}, seen); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestSyncedWaitsForEverySet(t *testing.T) {
	g := NewGraph()
	a, b := NewSet(g, self, same[string]), NewSet(g, self, same[string])
	m := Map(a, Kind[string]{self, same[string]}, func(_ *Read, s string) (string, bool) { return s, true })
	a.MarkSynced()
	select {
	case <-m.Synced():
		t.Fatal("derived collection is synced before every set of its graph is")
	default:
	}
	b.MarkSynced()
	b.MarkSynced()
	<-m.Synced()
}

// sums derives, for each group, the sum of its items, and marks groups that are banned.
func sums(groups, bans Collection[string], by *Index[string, item], count *int) Collection[item] {
	return Map(groups, Kind[item]{name, same[item]}, func(r *Read, group string) (item, bool) {
		*count++
		if _, banned := Get(r, bans, group); banned {
			return item{}, false
		}
		out := item{Name: group}
		for _, i := range Lookup(r, by, group) {
			out.N += i.N
		}
		return out, out.N != 0
	})
}

func TestOnlyDependentsRecompute(t *testing.T) {
	g := NewGraph()
	items, groups, bans := NewSet(g, name, same[item]), NewSet(g, self, same[string]), NewSet(g, self, same[string])
	by := NewIndex(items, func(i item) []string { return []string{i.Group} })
	count := 0
	out := sums(groups, bans, by, &count)
	above := 0
	Map(out, Kind[item]{name, same[item]}, func(_ *Read, i item) (item, bool) { above++; return i, true })
	groups.Put("x", "y", "z")
	items.Put(item{"a", "x", 1}, item{"b", "y", 2}, item{"c", "y", 3})

	count, above = 0, 0
	items.Put(item{"a", "x", 5})
	if count != 1 || above != 1 {
		t.Errorf("one item changed: %d and %d recomputed, want 1 and 1", count, above)
	}
	count, above = 0, 0
	g.Change(func(w *Wave) { items.Upsert(w, item{"b", "y", 3}, item{"c", "y", 2}) })
	if count != 1 || above != 0 {
		t.Errorf("sum stayed equal: %d and %d recomputed, want 1 and 0", count, above)
	}
	count = 0
	bans.Put("z")
	if count != 1 {
		t.Errorf("a ban of z recomputed %d groups, want 1", count)
	}
	want := map[string]item{"x": {"x", "", 5}, "y": {"y", "", 5}}
	if diff := cmp.Diff(want, contents(out)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestConflictsAndJoinAreDeterministic(t *testing.T) {
	g := NewGraph()
	a, b := NewSet(g, name, same[item]), NewSet(g, name, same[item])
	byGroup := Map(a, Kind[item]{func(i item) string { return i.Group }, same[item]}, func(_ *Read, i item) (item, bool) { return i, true })
	j := Join(same[item], Collection[item](a), Collection[item](b))
	a.Put(item{"2", "g", 2}, item{"1", "g", 1})
	b.Put(item{"1", "other", 9}, item{"3", "other", 3})
	if got, _ := byGroup.Get("g"); got.N != 1 {
		t.Errorf("conflict won by %v, want the input that sorts first", got)
	}
	if got, _ := j.Get("1"); got.N != 1 {
		t.Errorf("join shows %v, want the first collection's", got)
	}
	a.Drop("1")
	if got, _ := byGroup.Get("g"); got.N != 2 {
		t.Errorf("after the winner left: %v, want the other", got)
	}
	if got, _ := j.Get("1"); got.N != 9 {
		t.Errorf("join shows %v after the first left, want the second's", got)
	}
}

// Random waves through three levels equal a computation from scratch, for the contents and for what watchers saw.
func TestRandomWavesEqualRecomputation(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		g := NewGraph()
		items, groups, bans := NewSet(g, name, same[item]), NewSet(g, self, same[string]), NewSet(g, self, same[string])
		build := func() (Collection[item], Collection[string]) {
			n := 0
			s := sums(groups, bans, NewIndex(items, func(i item) []string { return []string{i.Group, "all"} }), &n)
			text := MapMany(s, Kind[string]{self, same[string]}, func(r *Read, i item) []string {
				return []string{fmt.Sprint(i), fmt.Sprintf("%d of %d", i.N%3, len(Everything(r, bans)))}
			})
			return s, text
		}
		live, liveText := build()
		watched := map[string]string{}
		liveText.Watch(func(es []Event[string]) {
			for _, e := range es {
				if e.New == nil {
					delete(watched, e.Key)
				} else {
					watched[e.Key] = *e.New
				}
			}
		})
		names := []string{"a", "b", "c", "d", "all"}
		for range 200 {
			g.Change(func(w *Wave) {
				for range rnd.IntN(4) {
					n, m := names[rnd.IntN(5)], names[rnd.IntN(5)]
					switch rnd.IntN(6) {
					case 0, 1:
						items.Upsert(w, item{n, m, rnd.IntN(5)})
					case 2:
						items.Delete(w, n)
					case 3:
						groups.Upsert(w, n)
					case 4:
						groups.Replace(w, slices.Compact([]string{n, m})...)
					case 5:
						if rnd.IntN(2) == 0 {
							bans.Upsert(w, n)
						} else {
							bans.Delete(w, n)
						}
					}
				}
			})
		}
		fresh, freshText := build()
		if diff := cmp.Diff(contents(fresh), contents(live)); diff != "" {
			t.Fatalf("seed %d: -fresh +live:\n%s", seed, diff)
		}
		if diff := cmp.Diff(contents(freshText), contents(liveText)); diff != "" {
			t.Fatalf("seed %d: -fresh +live:\n%s", seed, diff)
		}
		if diff := cmp.Diff(contents(liveText), watched); diff != "" {
			t.Fatalf("seed %d: -contents +watched:\n%s", seed, diff)
		}
	}
}

func TestConcurrentWritersAndReaders(t *testing.T) {
	g := NewGraph()
	s := NewSet(g, name, same[item])
	m := Map(s, Kind[item]{name, same[item]}, func(_ *Read, i item) (item, bool) { i.N *= 2; return i, true })
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 200 {
				s.Put(item{Name: fmt.Sprint(w, i%10), N: i})
				m.Get(fmt.Sprint(w, i%10))
			}
		})
	}
	wg.Wait()
	if n := len(contents(m)); n != 40 {
		t.Errorf("%d items, want 40", n)
	}
}

func BenchmarkOneChangeAmong10k(b *testing.B) {
	g := NewGraph()
	s := NewSet(g, name, same[item])
	by := NewIndex(s, func(i item) []string { return []string{i.Group} })
	Map(s, Kind[item]{name, same[item]}, func(r *Read, i item) (item, bool) {
		i.N += len(Lookup(r, by, i.Group))
		return i, true
	})
	for i := range 10_000 {
		s.Put(item{fmt.Sprint(i), fmt.Sprint(i / 10), i})
	}
	n := 0
	for b.Loop() {
		n++
		s.Put(item{"77", "7", n})
	}
}

func TestStillSeesWholeWaves(t *testing.T) {
	g := NewGraph()
	a, b := NewSet(g, name, same[item]), NewSet(g, name, same[item])
	var mu sync.Mutex
	var fromA, fromB int
	a.Watch(func(es []Event[item]) { mu.Lock(); fromA += len(es); mu.Unlock() })
	b.Watch(func(es []Event[item]) { mu.Lock(); fromB += len(es); mu.Unlock() })
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := range 2000 {
			g.Change(func(w *Wave) {
				a.Upsert(w, item{Name: "x", N: n})
				b.Upsert(w, item{Name: "x", N: n})
			})
		}
	})
	for seen := 0; seen < 2000; {
		Still(Collection[item](b), func() {
			mu.Lock()
			defer mu.Unlock()
			if seen = fromA; fromA != fromB {
				t.Errorf("half a wave is seen: %d and %d", fromA, fromB)
				seen = 2000
			}
		})
	}
	wg.Wait()
}
