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

	found := map[string]*content{}
	for _, name := range names {
		if !isObjectFile(name) {
			continue
		}
		c, err := s.load(name)
		switch {
		case err != nil:
			s.refuseLocked(Refusal{File: name, Err: err})
		case c == nil: // gone
			s.replaceLocked(&w, name, &content{})
			delete(s.refused, name)
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
	s.admitLocked(&w, found)
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
func (s *Source) admitLocked(w *wave, found map[string]*content) {
	for {
		progress := false
		for _, name := range slices.Sorted(maps.Keys(found)) {
			if len(s.conflictsLocked(name, found[name])) > 0 {
				continue
			}
			if _, was := s.refused[name]; was {
				s.log.Info("file is good again", "file", name)
				delete(s.refused, name)
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

func (s *Source) refuseLocked(r Refusal) {
	if was, ok := s.refused[r.File]; !ok || was.Err.Error() != r.Err.Error() {
		s.log.Error("file refused, what it said before stays in force", "file", r.File, "why", r.Err.Error())
	}
	s.refused[r.File] = r
}
