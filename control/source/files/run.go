package files

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// How often things are looked at that no event tells of.
const (
	awayEvery    = time.Second      // whether the directory is back
	troubleEvery = 10 * time.Second // folders that cannot be followed
)

// Run reads the directory and follows its changes until ctx ends. Nothing that it cannot read makes it end, nor withdraws
// what was read before: a directory that is gone, as when it is no longer mounted, has not been emptied.
func (s *Source) Run(ctx context.Context) error {
	w, err := newWatch(s.dir)
	if err != nil {
		return fmt.Errorf("watch %s: %w", s.dir, err)
	}
	defer func() { w.close() }()
	names := w.walk(s.dir)
	if err := s.conf.Kept.sweep(names); err != nil {
		s.conf.Log.Warn("what was kept of files that are gone stays", "error", err)
	}
	s.look(w, whole(names))
	s.store.MarkSynced()
	for {
		s.tellTrouble(w)
		at, ok := w.agenda.next()
		if len(w.trouble) > 0 && (!ok || at.After(time.Now().Add(troubleEvery))) {
			at, ok = time.Now().Add(troubleEvery), true
		}
		turn := time.NewTimer(time.Hour)
		if ok {
			turn.Reset(time.Until(at))
		}
		again := false
		select {
		case <-ctx.Done():
			turn.Stop()
			return ctx.Err()
		case e, open := <-w.fsn.Events:
			if !open {
				return errors.New("follow the directory of objects: the watcher has ended")
			}
			again = w.event(e, time.Now())
		case err := <-w.fsn.Errors:
			s.conf.Log.Warn("file events were lost, reading everything again", "dir", s.dir, "error", err)
			again = true
		case <-turn.C:
		}
		turn.Stop()
		if err := w.gone(); err != nil {
			back, err := s.away(ctx, w, err)
			if back == nil {
				return err
			}
			w, again = back, true
		}
		if _, busy := w.agenda.next(); again || !busy && len(w.trouble) > 0 {
			w.agenda.changed(time.Now(), append(w.walk(s.dir), s.known()...)...)
		}
		s.look(w, w.agenda.take(time.Now()))
	}
}

// look reads names again, and notes when to do so once more.
func (s *Source) look(w *watch, names []look) {
	if len(names) == 0 {
		return
	}
	for name, next := range s.update(names) {
		w.agenda.again(name, next.at, next.written)
	}
}

func whole(names []string) []look {
	out := make([]look, len(names))
	for i, n := range names {
		out[i] = look{name: n}
	}
	return out
}

// away waits until the directory is there again. What was read stays in force.
func (s *Source) away(ctx context.Context, old *watch, why error) (*watch, error) {
	s.refuse(Refusal{File: ".", Err: fmt.Errorf("the directory of objects is gone (%w); what was read of it stays in force", why)})
	old.close()
	tick := time.NewTicker(awayEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
		w, err := newWatch(s.dir)
		if err != nil {
			continue
		}
		if names := w.walk(s.dir); !slices.ContainsFunc(names, isObjectFile) && s.holds() {
			s.refuse(Refusal{File: ".", Err: errors.New("another directory, without any object, is in place of the directory of objects, " +
				"as when it is not mounted; what was read of it stays in force. Restart the control plane if it is meant to be empty")})
			w.close()
			continue
		}
		s.good(".")
		return w, nil
	}
}

// tellTrouble notes folders that cannot be followed as files that are refused.
func (s *Source) tellTrouble(w *watch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, r := range s.refused {
		if _, still := w.trouble[name]; r.folder && !still {
			s.goodLocked(name)
		}
	}
	for name, err := range w.trouble {
		s.refuseLocked(Refusal{File: name, Err: fmt.Errorf("%s: folder is not followed, and read every %v where that is possible: %w", name, troubleEvery, err), folder: true})
	}
}

func (s *Source) known() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append(slices.Collect(maps.Keys(s.files)), slices.Collect(maps.Keys(s.refused))...)
}

func (s *Source) holds() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.files) > 0
}
