package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Times of watching: a burst of changes is read at once, and a missing file is looked at twice, because editors
// replace a file in two steps.
const (
	settle    = 15 * time.Millisecond
	secondEye = 150 * time.Millisecond
)

// Run keeps the store true to its directories until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch the objects: %w", err)
	}
	defer w.Close()
	due := map[string]look{} // by full path
	for _, root := range []string{s.objects, s.status} {
		if root == "" {
			continue
		}
		if err := watchTree(w, root, due); err != nil {
			return fmt.Errorf("watch %s: %w", root, err)
		}
	}
	if err := s.vanished(due); err != nil {
		return err
	}
	timer := time.NewTimer(settle)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e, ok := <-w.Events:
			if !ok {
				return errors.New("watch the objects: the watcher ended")
			}
			if e.Has(fsnotify.Create) {
				// A new directory may hold files already; one that is no directory adds nothing here.
				if err := watchTree(w, e.Name, due); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return fmt.Errorf("watch %s: %w", e.Name, err)
				}
			}
			if isObjects(e.Name) {
				due[e.Name] = look{at: time.Now().Add(settle)}
			}
			timer.Reset(settle)
		case err := <-w.Errors:
			// Events were lost: look at everything.
			s.log.Warn("watching the objects: looking at all files again", "err", err)
			for _, root := range []string{s.objects, s.status} {
				if root != "" {
					if err := watchTree(w, root, due); err != nil {
						return fmt.Errorf("watch %s: %w", root, err)
					}
				}
			}
			if err := s.vanished(due); err != nil {
				return err
			}
			timer.Reset(settle)
		case now := <-timer.C:
			if next := s.lookAt(due, now); !next.IsZero() {
				timer.Reset(max(time.Until(next), time.Millisecond))
			}
		}
	}
}

// look is a file to be read when its time has come.
type look struct {
	at    time.Time
	again bool
}

// lookAt reads the files that are due and says when the next is.
func (s *Store) lookAt(due map[string]look, now time.Time) (next time.Time) {
	for path, l := range due {
		if l.at.After(now) {
			if next.IsZero() || l.at.Before(next) {
				next = l.at
			}
			continue
		}
		delete(due, path)
		again, err := s.look(path, l.again)
		if err != nil {
			s.log.Error("a changed file is not in force", "file", path, "err", err)
		}
		if again {
			due[path] = look{at: now.Add(secondEye), again: true}
			if next.IsZero() || due[path].at.Before(next) {
				next = due[path].at
			}
		}
	}
	return next
}

func (s *Store) look(path string, again bool) (bool, error) {
	if rel, ok := under(s.status, path); ok {
		return false, s.restatus(rel)
	}
	rel, ok := under(s.objects, path)
	if !ok {
		return false, nil
	}
	return s.reread(rel, again)
}

// vanished makes the known files due that no tree walk shows.
func (s *Store) vanished(due map[string]look) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for path := range s.files {
		full := filepath.Join(s.objects, path)
		if _, ok := due[full]; !ok {
			due[full] = look{at: time.Now().Add(settle)}
		}
	}
	return nil
}

func under(root, path string) (string, bool) {
	if root == "" {
		return "", false
	}
	rel, err := filepath.Rel(root, path)
	return rel, err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

// watchTree watches a directory and all in it, and makes their files due.
func watchTree(w *fsnotify.Watcher, root string, due map[string]look) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		if d.IsDir() {
			if err := w.Add(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return nil
		}
		if isObjects(path) {
			due[path] = look{at: time.Now().Add(settle)}
		}
		return nil
	})
}
