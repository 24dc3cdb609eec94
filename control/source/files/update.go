package files

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ambit-mesh/ambit/control/source"
	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// wave collects what a batch of files changes, so that it is seen at once.
type wave struct {
	put  map[id]kinds.Object
	drop map[id]source.Ref
}

// next is when to look at a name again.
type next struct{ at, written time.Time }

// calm is how long a file that was written where it is must stand still before what it no longer says is taken away: a
// writer may have paused.
const calm = time.Second

// update reads the named files again and applies all that they change as one wave. It tells which to look at once more.
func (s *Source) update(looks []look) map[string]next {
	written, waited := map[string]time.Time{}, time.Duration(0)
	for _, l := range looks {
		written[l.name] = l.written
		waited = max(waited, l.waited)
	}
	read := s.loadAll(looks)

	s.mu.Lock()
	defer s.mu.Unlock()
	w := wave{put: map[id]kinds.Object{}, drop: map[id]source.Ref{}}
	again := map[string]next{}
	now := time.Now()
	found, old := map[string]*content{}, map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(read)) {
		c, err := read[name].content, read[name].err
		switch {
		case err != nil:
			if c := s.brokenLocked(name, err, now, again); c != nil {
				found[name], old[name] = c, true
			}
		case c == nil: // gone
			s.replaceLocked(&w, name, &content{})
			s.goodLocked(name)
			s.keepLocked(name, nil, "")
		case s.takesAwayLocked(name, c) && now.Before(written[name].Add(calm)):
			again[name] = next{written[name].Add(calm), written[name]}
		default:
			found[name] = c
		}
	}
	// Files that were refused for what others said are looked at again.
	for name, r := range s.refused {
		if _, now := found[name]; r.duplicate && !now {
			if c, err := s.load(name); err == nil && c != nil { // if not, its own event will tell
				found[name] = c
			}
		}
	}
	s.admitLocked(&w, found, old)
	var put []kinds.Object
	var drop []source.Ref
	for _, o := range w.put {
		put = append(put, o)
	}
	for i, r := range w.drop {
		if _, back := w.put[i]; !back {
			drop = append(drop, r)
		}
	}
	if len(put)+len(drop) > 0 {
		s.store.ApplyAfter(waited, put, drop)
	}
	return again
}

// brokenLocked refuses a file. Where nothing of it is in force, as after a start, what it said when it was good is given
// back.
func (s *Source) brokenLocked(name string, err error, now time.Time, again map[string]next) *content {
	r := Refusal{File: name, Err: err}
	var reading readError
	if errors.As(err, &reading) {
		r.tries = s.refused[name].tries + 1
		again[name] = next{at: now.Add(min(retryFirst<<min(r.tries-1, 10), retryLast))}
	}
	_, before := s.refused[name]
	s.refuseLocked(r)
	if c := s.files[name]; c != nil {
		if !before {
			s.keepLocked(name, c, "It is refused since "+now.UTC().Format(time.RFC3339)+":\n"+err.Error())
		}
		return nil
	}
	data, err := s.conf.Kept.load(name)
	if err != nil || data == nil {
		if err != nil {
			s.conf.Log.Warn("what a broken file said before cannot be read", "file", name, "error", err)
		}
		return nil
	}
	c, err := s.parse(name, data)
	if err != nil {
		s.conf.Log.Warn("what a broken file said before is not understood", "file", name, "error", err)
		return nil
	}
	s.conf.Log.Warn("file is broken; what it said when it was good is in force", "file", name, "objects", len(c.objects))
	return c
}

// takesAwayLocked reports whether a file no longer says something that it says now.
func (s *Source) takesAwayLocked(name string, c *content) bool {
	if old := s.files[name]; old != nil {
		for i := range old.objects {
			if _, still := c.objects[i]; !still {
				return true
			}
		}
	}
	return false
}

// keepLocked remembers what a file says, or forgets it.
func (s *Source) keepLocked(name string, c *content, why string) {
	var err error
	if c == nil {
		err = s.conf.Kept.forget(name)
	} else {
		err = s.conf.Kept.save(name, c, why)
	}
	if err != nil {
		s.conf.Log.Warn("a restart would not know what the file said", "file", name, "error", err)
	}
}

// loaded is what reading a file gave.
type loaded struct {
	content *content // nil when the file is gone
	err     error
}

// loadAll reads the files among the names, and those in folders among them that are known.
func (s *Source) loadAll(looks []look) map[string]loaded {
	var names []string
	s.mu.Lock()
	for _, l := range looks {
		names = append(append(names, l.name), s.belowLocked(l.name)...)
	}
	s.mu.Unlock()
	names = slices.DeleteFunc(names, func(n string) bool { return !isObjectFile(n) })
	slices.Sort(names)
	names = slices.Compact(names)
	all := make([]loaded, len(names))
	var turn atomic.Int64
	var readers sync.WaitGroup
	for range min(len(names), runtime.GOMAXPROCS(0)) { // a start reads thousands
		readers.Go(func() {
			for i := turn.Add(1) - 1; int(i) < len(names); i = turn.Add(1) - 1 {
				c, err := s.load(names[i])
				all[i] = loaded{c, err}
			}
		})
	}
	readers.Wait()
	out := make(map[string]loaded, len(names))
	for i, name := range names {
		out[name] = all[i]
	}
	return out
}

// load reads and checks a file; nil when it is gone.
func (s *Source) load(name string) (*content, error) {
	data, err := s.read(name)
	if err != nil || data == nil {
		return nil, err
	}
	return s.parse(name, data)
}

// parse checks the bytes of a file.
func (s *Source) parse(name string, data []byte) (*content, error) {
	found, err := kinds.Decode(name, data)
	if err != nil {
		return nil, err
	}
	c := &content{objects: make(map[id]entry, len(found))}
	var problems kinds.Problems
	for _, l := range found {
		k := kinds.Of(l.Object)
		if k.Namespaced && l.Object.GetNamespace() == "" {
			l.Object.SetNamespace("default")
		}
		problems = append(problems, l.Problems()...)
		ref := source.RefOf(l.Object)
		i := id{k.Resource(), ref.Key}
		if other, twice := c.objects[i]; twice {
			problems = append(problems, kinds.Problem{
				File: name, Line: l.Line, What: fmt.Sprintf("%s %s is there twice, first in line %d", k.Kind, ref.Key, other.line), Hint: "remove one",
			})
			continue
		}
		text, err := kinds.EncodeJSON(l.Object)
		if err != nil {
			problems = append(problems, kinds.Problem{File: name, Line: l.Line, What: err.Error()})
			continue
		}
		e := entry{sum: sha256.Sum256(text), line: l.Line, ref: ref}
		if s.store.Reads(l.Object) {
			e.object = l.Object
		}
		c.objects[i] = e
	}
	if len(problems) > 0 {
		return nil, problems
	}
	return c, nil
}

// admitLocked puts files in force. One that says an object of another file waits until that one has let go of it, so
// that an object may move between files in one batch, and is refused in the end.
// What is old stays refused.
func (s *Source) admitLocked(w *wave, found map[string]*content, old map[string]bool) {
	for {
		progress := false
		for _, name := range slices.Sorted(maps.Keys(found)) {
			if len(s.conflictsLocked(name, found[name])) > 0 {
				continue
			}
			if !old[name] {
				s.goodLocked(name)
				if c := found[name]; important(c) {
					s.keepLocked(name, c, "")
				} else {
					s.keepLocked(name, nil, "")
				}
			}
			s.replaceLocked(w, name, found[name])
			delete(found, name)
			progress = true
		}
		if !progress {
			break
		}
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		if old[name] {
			continue // another file says it by now
		}
		s.refuseLocked(Refusal{File: name, Err: s.conflictsLocked(name, found[name]), duplicate: true})
	}
}

// conflictsLocked are the objects of a file that another file has in force.
func (s *Source) conflictsLocked(name string, c *content) kinds.Problems {
	var problems kinds.Problems
	for i, e := range c.objects {
		if other, taken := s.owners[i]; taken && other != name {
			problems = append(problems, kinds.Problem{
				File: name, Line: e.line,
				What: fmt.Sprintf("%s %s is already in %s:%d", e.ref.Kind.Kind, e.ref.Key, other, s.files[other].objects[i].line), Hint: "remove one of them",
			})
		}
	}
	slices.SortFunc(problems, func(a, b kinds.Problem) int { return a.Line - b.Line })
	return problems
}

// replaceLocked exchanges what a file says.
func (s *Source) replaceLocked(w *wave, name string, c *content) {
	old := s.files[name]
	if old == nil {
		old = &content{}
	}
	for i, e := range old.objects {
		if _, still := c.objects[i]; !still {
			w.drop[i] = e.ref
			delete(w.put, i)
			delete(s.owners, i)
		}
	}
	for i, e := range c.objects {
		if was, ok := old.objects[i]; ok && was.sum == e.sum {
			e.object = was.object // the same pointer tells that nothing changed
			c.objects[i] = e
			continue
		}
		s.owners[i] = name
		if e.object != nil {
			w.put[i] = e.object
		}
	}
	if len(c.objects) == 0 {
		delete(s.files, name)
		return
	}
	s.files[name] = c
}

func (s *Source) refuse(r Refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuseLocked(r)
}

func (s *Source) refuseLocked(r Refusal) {
	was, ok := s.refused[r.File]
	if r.Since = was.Since; !ok {
		r.Since = time.Now()
	}
	if !ok || was.Err.Error() != r.Err.Error() {
		s.conf.Log.Error("file refused, what it said before stays in force", "file", r.File, "why", r.Err.Error())
	}
	s.refused[r.File] = r
	s.tell()
}

func (s *Source) good(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.goodLocked(name)
}

func (s *Source) goodLocked(name string) {
	if _, was := s.refused[name]; was {
		s.conf.Log.Info("file is good again, or gone", "file", name)
		delete(s.refused, name)
		s.tell()
	}
}
