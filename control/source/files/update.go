package files

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"

	"github.com/ambit-mesh/ambit/control/source"
	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// wave collects what a batch of files changes, so that it is seen at once.
type wave struct {
	put  map[id]kinds.Object
	drop map[id]source.Ref
}

// update reads the named files again and applies all that they change as one wave.
func (s *Source) update(names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := wave{put: map[id]kinds.Object{}, drop: map[id]source.Ref{}}
	for _, name := range slices.Clone(names) {
		names = append(names, s.belowLocked(name)...)
	}
	slices.Sort(names)
	names = slices.Compact(names)

	// What is gone makes way first, so that an object may move from one file to another in one batch.
	found := map[string]*content{}
	for _, name := range names {
		if !isObjectFile(name) {
			continue
		}
		data, err := s.read(name)
		if err != nil {
			s.refuseLocked(Refusal{File: name, Err: err})
			continue
		}
		if data == nil {
			s.replaceLocked(&w, name, nil)
			delete(s.refused, name)
			continue
		}
		c, err := s.parse(name, data)
		if err != nil {
			s.refuseLocked(Refusal{File: name, Err: err})
			continue
		}
		found[name] = c
		for gone := range s.vanishedLocked(name, c) {
			s.dropLocked(&w, name, gone)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		s.admitLocked(&w, name, found[name])
	}
	s.retryLocked(&w)
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
		s.store.Apply(put, drop)
	}
}

// parse reads and checks a file.
func (s *Source) parse(name string, data []byte) (*content, error) {
	found, err := kinds.Decode(name, data)
	if err != nil {
		return nil, err
	}
	c := &content{sum: sha256.Sum256(data), objects: make(map[id]entry, len(found))}
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

// vanishedLocked are the objects of a file that its new content no longer has.
func (s *Source) vanishedLocked(name string, c *content) map[id]entry {
	out := map[id]entry{}
	if old := s.files[name]; old != nil {
		for i, e := range old.objects {
			if _, still := c.objects[i]; !still {
				out[i] = e
			}
		}
	}
	return out
}

func (s *Source) dropLocked(w *wave, name string, i id) {
	old := s.files[name]
	w.drop[i] = old.objects[i].ref
	delete(w.put, i)
	delete(old.objects, i)
	delete(s.owners, i)
}

// admitLocked puts a file's content in force, unless another file already says one of its objects.
func (s *Source) admitLocked(w *wave, name string, c *content) {
	var problems kinds.Problems
	for i, e := range c.objects {
		if other, taken := s.owners[i]; taken && other != name {
			problems = append(problems, kinds.Problem{
				File: name, Line: e.line,
				What: fmt.Sprintf("%s %s is already in %s:%d", e.ref.Kind.Kind, e.ref.Key, other, s.files[other].objects[i].line), Hint: "remove one of them",
			})
		}
	}
	if len(problems) > 0 {
		slices.SortFunc(problems, func(a, b kinds.Problem) int { return a.Line - b.Line })
		s.refuseLocked(Refusal{File: name, Err: problems, duplicate: true})
		return
	}
	if _, was := s.refused[name]; was {
		s.log.Info("file is good again", "file", name)
		delete(s.refused, name)
	}
	s.replaceLocked(w, name, c)
}

// replaceLocked exchanges what a file says. nil takes all of it away.
func (s *Source) replaceLocked(w *wave, name string, c *content) {
	if c == nil {
		c = &content{}
	}
	for i := range s.vanishedLocked(name, c) {
		s.dropLocked(w, name, i)
	}
	old := s.files[name]
	for i, e := range c.objects {
		if old != nil {
			if was, ok := old.objects[i]; ok && was.sum == e.sum {
				e.object = was.object // the same pointer tells that nothing changed
				c.objects[i] = e
				continue
			}
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

func (s *Source) refuseLocked(r Refusal) {
	if was, ok := s.refused[r.File]; !ok || was.Err.Error() != r.Err.Error() {
		s.log.Error("file refused, what it said before stays in force", "file", r.File, "why", r.Err.Error())
	}
	s.refused[r.File] = r
}

// retryLocked looks again at files that were refused for what others said.
func (s *Source) retryLocked(w *wave) {
	for _, name := range slices.Sorted(maps.Keys(s.refused)) {
		if !s.refused[name].duplicate {
			continue
		}
		data, err := s.read(name)
		if err != nil || data == nil {
			continue // its own event will tell
		}
		if c, err := s.parse(name, data); err == nil {
			s.admitLocked(w, name, c)
		}
	}
}
