// Package files fills the control plane's objects from a directory of YAML and keeps them up to date.
package files

import (
	"crypto/sha256"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/control/source"
	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// Config of a Source.
type Config struct {
	// Dir holds the objects. It is created if missing.
	Dir string
	// Kept is a directory, not below Dir, that remembers over a restart what files said before they broke. "" remembers
	// nothing.
	Kept string
	Log  *slog.Logger
	// Read reads a file, nil where there is none. Default reads regular files. For tests of slow and failing disks.
	Read func(path string) ([]byte, error)
}

// Source is a directory tree of YAML and JSON files, read into a Store. Each file counts whole or not at all: a broken
// one is refused and what it said before stays in force.
type Source struct {
	conf  config
	dir   string
	store *source.Store

	hangMu  sync.Mutex               // guards below
	hanging map[string]chan struct{} // reads that do not end, by path

	mu      sync.Mutex          // guards below
	tell    func()              // that there are other problems
	files   map[string]*content // by path below dir; those with something in force
	owners  map[id]string       // which file an object is from
	refused map[string]Refusal  // by path
}

// config is Config in the package's own types.
type config struct {
	Kept kept
	Log  *slog.Logger
	Read func(path string) ([]byte, error)
}

// Refusal is a file that does not count as it is now, and why.
type Refusal struct {
	File  string // below the directory
	Err   error
	Since time.Time

	duplicate bool // worth another try when other files change
	folder    bool // is a folder that cannot be followed
	tries     int  // to read it
}

type id struct{ resource, key string }

type content struct{ objects map[id]entry }

type entry struct {
	sum    [sha256.Size]byte // of what the object says
	line   int
	ref    source.Ref
	object kinds.Object // nil for kinds that the control plane does not read
}

// Open makes the source of a directory. Run reads it.
func Open(c Config) (*Source, error) {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the directory of objects: %w", err)
	}
	dir, err := filepath.EvalSymlinks(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("open the directory of objects: %w", err)
	}
	if c.Read == nil {
		c.Read = readFile
	}
	if c.Kept != "" && strings.HasPrefix(filepath.Clean(c.Kept)+string(filepath.Separator), dir+string(filepath.Separator)) {
		return nil, fmt.Errorf("%s is below the directory of objects; keep what files said elsewhere", c.Kept)
	}
	return &Source{
		conf: config{kept(c.Kept), c.Log, c.Read}, dir: dir, store: source.NewStore(),
		tell: func() {}, files: map[string]*content{}, owners: map[id]string{}, refused: map[string]Refusal{}, hanging: map[string]chan struct{}{},
	}, nil
}

// Store is what the directory says. It is synced after the first full reading.
func (s *Source) Store() *source.Store { return s.store }

// Refused are the files that are refused now, by name.
func (s *Source) Refused() []Refusal {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Refusal
	for _, name := range slices.Sorted(maps.Keys(s.refused)) {
		out = append(out, s.refused[name])
	}
	return out
}

// Problems are the refused files, and how much of what they said before is in force.
func (s *Source) Problems() []source.Problem {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []source.Problem
	for _, name := range slices.Sorted(maps.Keys(s.refused)) {
		r := s.refused[name]
		p := source.Problem{File: name, Since: r.Since, Why: r.Err.Error()}
		for file, c := range s.files {
			if file == name || name == "." || strings.HasPrefix(file, name+string(filepath.Separator)) {
				for _, e := range c.objects {
					p.Kept = append(p.Kept, e.ref)
				}
			}
		}
		slices.SortFunc(p.Kept, func(a, b source.Ref) int {
			return strings.Compare(a.Kind.Resource()+"/"+a.Key, b.Kind.Resource()+"/"+b.Key)
		})
		out = append(out, p)
	}
	return out
}

// OnProblem has f called whenever there are other problems than before. It must not block nor call back.
func (s *Source) OnProblem(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tell = f
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

// belowLocked lists the known files in a folder that is gone.
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
