package store

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// FileAnnotation names the file that a person dropped into the directory and that brought an object.
const FileAnnotation = "local.ambit.io/file"

// pathOf is where an object is kept, relative to the directory.
func pathOf(k kinds.Kind, key Key) string {
	ns := key.Namespace
	if ns == "" {
		ns = "_cluster"
	}
	return filepath.Join(ns, k.Resource(), key.Name+".yaml")
}

func groupVersionKind(k kinds.Kind) schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: k.Group, Version: k.Version, Kind: k.Kind}
}

// save writes an object's file. A file that a person is at work on, broken as it is, is left to them.
func (s *Store) save(k kinds.Kind, key Key, o kinds.Object) error {
	path := pathOf(k, key)
	s.mu.RLock()
	_, broken := s.refused[path]
	s.mu.RUnlock()
	if broken {
		return nil
	}
	data, err := kinds.Encode(o)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.files[path] = &file{sum: sha256.Sum256(data), keys: []ref{{k.Resource(), key}}}
	s.mu.Unlock()
	if err := WriteFile(filepath.Join(s.objects, path), data); err != nil {
		return fmt.Errorf("keep %s %s: %w", k.Resource(), key, err)
	}
	return nil
}

// unsave removes the files of an object: its own, and the one that was dropped if it holds nothing else.
func (s *Store) unsave(k kinds.Kind, key Key) error {
	path := pathOf(k, key)
	gone := []string{path}
	s.mu.Lock()
	delete(s.files, path)
	delete(s.refused, path)
	for other, f := range s.files {
		if f.keys = slices.DeleteFunc(f.keys, func(r ref) bool { return r == ref{k.Resource(), key} }); len(f.keys) == 0 {
			gone = append(gone, other)
			delete(s.files, other)
		}
	}
	s.mu.Unlock()
	for _, path := range gone {
		if err := os.Remove(filepath.Join(s.objects, path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the file of %s %s: %w", k.Resource(), key, err)
		}
	}
	return nil
}

// WriteFile writes a file of mode 0600 so that a reader sees all of it or the file before, and makes its directory.
func WriteFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	temp, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = temp.Write(data)
	if err = errors.Join(err, temp.Close()); err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	return nil
}

// isObjects reports whether a file of this name holds objects.
func isObjects(name string) bool {
	return !strings.HasPrefix(filepath.Base(name), ".") && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name))
}

// walk lists the files of objects under dir, relative to it.
func walk(dir string) ([]string, error) {
	var paths []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // went away meanwhile
		}
		if err != nil {
			return err
		}
		if !d.IsDir() && isObjects(path) {
			rel, err := filepath.Rel(dir, path)
			if err != nil {
				return err
			}
			paths = append(paths, rel)
		}
		return nil
	})
	return paths, err
}

// load reads everything: the store's own files first, then what was dropped, then it drops what only a file that is
// gone had brought.
func (s *Store) load() error {
	s.write.Lock()
	defer s.write.Unlock()
	if s.status != "" {
		paths, err := walk(s.status)
		if err != nil {
			return err
		}
		for _, path := range paths {
			s.readOverlay(path)
		}
	}
	paths, err := walk(s.objects)
	if err != nil {
		return err
	}
	var dropped []string
	for _, path := range paths {
		data, err := os.ReadFile(filepath.Join(s.objects, path))
		if err != nil {
			return err
		}
		found, err := s.decode(path, data)
		if err != nil {
			s.refuse(path, data, err)
			continue
		}
		k, key, own := ownFile(path, found)
		if !own {
			dropped = append(dropped, path)
			continue
		}
		if err := s.restore(k, key, found[0].Object, path, data); err != nil {
			return err
		}
	}
	for _, set := range s.sets {
		set.lost = s.revision
	}
	for _, path := range dropped {
		if err := s.readDropped(path); err != nil {
			return err
		}
	}
	return s.dropOrphans()
}

// restore takes an object of an earlier life as it was.
func (s *Store) restore(k kinds.Kind, key Key, o kinds.Object, path string, data []byte) error {
	b, err := bodyOf(o)
	if err != nil {
		return err
	}
	revision, err := strconv.ParseUint(o.GetResourceVersion(), 10, 64)
	s.mu.Lock()
	s.files[path] = &file{sum: sha256.Sum256(data), keys: []ref{{k.Resource(), key}}}
	s.mu.Unlock()
	if err != nil || o.GetUID() == "" { // written by a person, who knows nothing of revisions
		_, err := s.put(k, o)
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revision = max(s.revision, revision)
	s.sets[k.Resource()].entries[key] = entry{base: o, shown: s.withOverlayLocked(k, key, o), body: b}
	return nil
}

// ownFile tells whether a file is the store's own of one object.
func ownFile(path string, found []kinds.Located) (kinds.Kind, Key, bool) {
	if len(found) != 1 {
		return kinds.Kind{}, Key{}, false
	}
	o := found[0].Object
	k := kinds.Of(o)
	key := keyOf(k, o.GetNamespace(), o.GetName())
	return k, key, pathOf(k, key) == path
}

// decode reads and checks a file's objects.
func (s *Store) decode(path string, data []byte) ([]kinds.Located, error) {
	found, err := kinds.Decode(filepath.Join(s.objects, path), data)
	if err != nil {
		return nil, err
	}
	return found, problems(found)
}

// refuse notes why a file is not in force.
func (s *Store) refuse(path string, data []byte, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.files[path]; f != nil {
		f.sum = sha256.Sum256(data)
	} else {
		s.files[path] = &file{sum: sha256.Sum256(data)}
	}
	s.refused[path] = why
	s.log.Warn("file refused, its last good content stays in force", "file", filepath.Join(s.objects, path), "err", why)
}
