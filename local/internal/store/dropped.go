package store

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// reread brings the store up to date with a file that may have changed. again asks for a second look: a file that is
// missing may be in the middle of being replaced by an editor.
func (s *Store) reread(path string, again bool) (lookAgain bool, err error) {
	s.write.Lock()
	defer s.write.Unlock()
	data, err := os.ReadFile(filepath.Join(s.objects, path))
	if errors.Is(err, fs.ErrNotExist) {
		s.mu.RLock()
		_, known := s.files[path]
		s.mu.RUnlock()
		if known && !again {
			return true, nil
		}
		return false, s.fileGone(path)
	}
	if err != nil {
		return false, fmt.Errorf("read a changed file: %w", err)
	}
	s.mu.RLock()
	known := s.files[path]
	same := known != nil && known.sum == sha256.Sum256(data)
	s.mu.RUnlock()
	if same {
		return false, nil
	}
	found, err := s.decode(path, data)
	if err != nil {
		s.refuse(path, data, err)
		return false, nil
	}
	if k, key, own := ownFile(path, found); own {
		return false, s.replace(k, key, found[0].Object, path, data)
	}
	return false, s.readDropped(path)
}

// replace takes what a person, or the control plane, wrote into the file of one object.
func (s *Store) replace(k kinds.Kind, key Key, next kinds.Object, path string, data []byte) error {
	if old, ok := s.entry(k, key); ok {
		if err := immutable(old.base, next); err != nil {
			s.refuse(path, data, err)
			return nil
		}
		CopyStatus(next, old.base)
		if from := old.base.GetAnnotations()[FileAnnotation]; from != "" && next.GetAnnotations()[FileAnnotation] == "" {
			setAnnotation(next, FileAnnotation, from)
		}
	}
	s.accept(path, data, []ref{{k.Resource(), key}})
	if _, err := s.put(k, next); err != nil {
		s.refuse(path, data, err)
	}
	return nil
}

// readDropped applies a file that somebody put into the directory.
func (s *Store) readDropped(path string) error {
	data, err := os.ReadFile(filepath.Join(s.objects, path))
	if err != nil {
		return fmt.Errorf("read a dropped file: %w", err)
	}
	found, err := s.decode(path, data)
	if err != nil {
		s.refuse(path, data, err)
		return nil
	}
	var refs []ref
	for i, l := range found {
		k := kinds.Of(l.Object)
		key := keyOf(k, l.Object.GetNamespace(), l.Object.GetName())
		refs = append(refs, ref{k.Resource(), key})
		if old, ok := s.entry(k, key); ok {
			if err := immutable(old.base, l.Object); err != nil {
				s.refuse(path, data, fmt.Errorf("%s:%d: %w", l.File, l.Line, err))
				return nil
			}
		}
		setAnnotation(found[i].Object, FileAnnotation, path)
	}
	s.mu.RLock()
	var before []ref
	if f := s.files[path]; f != nil {
		before = slices.Clone(f.keys)
	}
	s.mu.RUnlock()
	s.accept(path, data, refs)
	for _, l := range found {
		if _, _, err := s.apply(l.Object); err != nil {
			s.refuse(path, data, fmt.Errorf("%s:%d: %w", l.File, l.Line, err))
			return nil
		}
	}
	for _, r := range before {
		if !slices.Contains(refs, r) {
			if err := s.removeIfFrom(r, path); err != nil {
				return err
			}
		}
	}
	return nil
}

// accept notes what a file holds, and that it is in force.
func (s *Store) accept(path string, data []byte, refs []ref) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refused[path] != nil {
		s.log.Info("file accepted again", "file", filepath.Join(s.objects, path))
	}
	delete(s.refused, path)
	s.files[path] = &file{sum: sha256.Sum256(data), keys: refs}
}

// fileGone deletes what a removed file held.
func (s *Store) fileGone(path string) error {
	s.mu.Lock()
	f := s.files[path]
	delete(s.files, path)
	delete(s.refused, path)
	s.mu.Unlock()
	if f == nil {
		return nil
	}
	for _, r := range f.keys {
		k := s.table[r.resource]
		if pathOf(k, r.Key) == path {
			if err := s.remove(k, r.Key, DeleteOptions{}); err != nil && !errors.Is(err, ErrNotFound) {
				return err
			}
			continue
		}
		if err := s.removeIfFrom(r, path); err != nil {
			return err
		}
	}
	return nil
}

// removeIfFrom deletes an object if the file at path brought it.
func (s *Store) removeIfFrom(r ref, path string) error {
	k := s.table[r.resource]
	e, ok := s.entry(k, r.Key)
	if !ok || e.base.GetAnnotations()[FileAnnotation] != path {
		return nil
	}
	return s.remove(k, r.Key, DeleteOptions{})
}

// dropOrphans deletes what files brought that were removed, or lost the object, while no store was running.
func (s *Store) dropOrphans() error {
	for resource, set := range s.sets {
		s.mu.RLock()
		orphans := map[ref]string{}
		for key, e := range set.entries {
			from := e.base.GetAnnotations()[FileAnnotation]
			if from == "" || s.refused[from] != nil {
				continue
			}
			if f := s.files[from]; f == nil || !slices.Contains(f.keys, ref{resource, key}) {
				orphans[ref{resource, key}] = from
			}
		}
		s.mu.RUnlock()
		for r, from := range orphans {
			if err := s.removeIfFrom(r, from); err != nil {
				return err
			}
		}
	}
	return nil
}

func setAnnotation(o kinds.Object, name, value string) {
	all := o.GetAnnotations()
	if all == nil {
		all = map[string]string{}
	}
	all[name] = value
	o.SetAnnotations(all)
}
