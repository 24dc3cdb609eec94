// Package files fills the control plane's objects from a directory of YAML and keeps them up to date.
package files

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/ambit-mesh/ambit/control/source"
	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// Source is a directory tree of YAML and JSON files, read into a Store. Each file counts whole or not at all: a broken
// one is refused and what it said before stays in force.
type Source struct {
	dir   string
	log   *slog.Logger
	store *source.Store

	mu      sync.Mutex          // guards below
	files   map[string]*content // by path below dir; those with something in force
	owners  map[id]string       // which file an object is from
	refused map[string]Refusal  // by path
}

// Refusal is a file that does not count as it is now, and why.
type Refusal struct {
	File string // below the directory
	Err  error

	duplicate bool // worth another try when other files change
}

type id struct{ resource, key string }

type content struct{ objects map[id]entry }

type entry struct {
	sum    [sha256.Size]byte // of what the object says
	line   int
	ref    source.Ref
	object kinds.Object // nil for kinds that the control plane does not read
}

// Open makes the source of a directory, which is created if missing. Run reads it.
func Open(dir string, log *slog.Logger) (*Source, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the directory of objects: %w", err)
	}
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, fmt.Errorf("open the directory of objects: %w", err)
	}
	return &Source{
		dir: dir, log: log, store: source.NewStore(),
		files: map[string]*content{}, owners: map[id]string{}, refused: map[string]Refusal{},
	}, nil
}

// Store is what the directory says. It is synced after the first full reading.
func (s *Source) Store() *source.Store { return s.store }

// Problems are the files that are refused now, by name.
func (s *Source) Problems() []Refusal {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Refusal
	for _, name := range slices.Sorted(maps.Keys(s.refused)) {
		out = append(out, s.refused[name])
	}
	return out
}

// Run reads the directory and follows its changes until ctx ends.
func (s *Source) Run(ctx context.Context) error {
	w, err := newWatch(s.dir)
	if err != nil {
		return fmt.Errorf("watch %s: %w", s.dir, err)
	}
	defer w.close()
	all, err := w.everything()
	if err != nil {
		return fmt.Errorf("read %s: %w", s.dir, err)
	}
	s.update(all)
	s.store.MarkSynced()
	for {
		batch, err := w.next(ctx)
		if errors.Is(err, errMissed) {
			// The kernel dropped events: everything there is, and everything there was, may have changed.
			s.log.Warn("file events were lost, reading everything again", "dir", s.dir)
			if batch, err = w.everything(); err == nil {
				batch = append(batch, s.known()...)
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("watch %s: %w", s.dir, err)
		}
		s.update(batch)
	}
}

// isObjectFile tells the files that count from temporary ones.
func isObjectFile(name string) bool {
	base := filepath.Base(name)
	if strings.HasPrefix(base, ".") || strings.HasPrefix(base, "#") {
		return false
	}
	switch filepath.Ext(base) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}

func (s *Source) known() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append(slices.Collect(maps.Keys(s.files)), slices.Collect(maps.Keys(s.refused))...)
}

// below lists the known files in a folder that is gone.
func (s *Source) belowLocked(dir string) []string {
	var out []string
	for name := range s.files {
		if strings.HasPrefix(name, dir+string(filepath.Separator)) {
			out = append(out, name)
		}
	}
	for name := range s.refused {
		if strings.HasPrefix(name, dir+string(filepath.Separator)) {
			out = append(out, name)
		}
	}
	return out
}

// read gives a file's bytes, nil when it is gone.
func (s *Source) read(name string) ([]byte, error) {
	path := filepath.Join(s.dir, name)
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, nil
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s: is not a regular file", name)
	case info.Size() > kinds.MaxBytes:
		return nil, fmt.Errorf("%s: has %d bytes, more than %d; split the file", name, info.Size(), kinds.MaxBytes)
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if data == nil && err == nil {
		data = []byte{}
	}
	return data, err
}
