// Package store keeps every object of a one-machine cluster as YAML files in one directory.
package store

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// Errors that callers branch on.
var (
	ErrNotFound = errors.New("not found")
	ErrExists   = errors.New("already exists")
	ErrConflict = errors.New("was changed meanwhile")
	ErrInvalid  = errors.New("is invalid")
	ErrGone     = errors.New("is too old a resource version")
)

// Key names one object of a kind. Namespace is "" for what the cluster holds.
type Key struct{ Namespace, Name string }

func (k Key) String() string {
	if k.Namespace == "" {
		return k.Name
	}
	return k.Namespace + "/" + k.Name
}

// Config says where a store keeps its files.
type Config struct {
	// Objects is the directory of YAML: the single truth.
	Objects string
	// Status is the directory where the control plane writes the status of objects it reads. May be empty.
	Status string
	// Families are the address families of the cluster, its own first. Default: IPv4.
	Families []corev1.IPFamily
	Log      *slog.Logger
}

// Store holds every object of the cluster. What it gives out is shared and must not be written.
type Store struct {
	objects, status string
	log             *slog.Logger
	families        []corev1.IPFamily
	table           map[string]kinds.Kind // by Kind.Resource()

	write sync.Mutex // held for a whole change, its file included; taken before mu; guards dry
	dry   bool       // the change is only tried: everything but keeping it

	mu       sync.RWMutex // guards below
	sets     map[string]*set
	files    map[string]*file   // by path under objects
	overlays map[string]overlay // by path under status
	refused  map[string]error   // by path: why the file's present content is not in force
	revision uint64
	changed  chan struct{} // closed at the next change
	subs     map[*subscription]bool
}

// set is every object of one kind.
type set struct {
	kind    kinds.Kind
	entries map[Key]entry
	history []Event // the last changes, oldest first
	lost    uint64  // revision of the last change that history does not hold
}

// entry is one object.
type entry struct {
	base  kinds.Object // as it is on disk
	shown kinds.Object // base with the status that the control plane wrote
	body  body
}

// file is what the store knows of one file under objects.
type file struct {
	sum  [32]byte
	keys []ref // what it holds
}

// ref names an object of any kind.
type ref struct {
	resource string
	Key
}

// Open reads the directories, making them where they do not exist.
func Open(c Config) (*Store, error) {
	s := &Store{
		objects: c.Objects, status: c.Status, log: c.Log,
		table: map[string]kinds.Kind{}, sets: map[string]*set{}, files: map[string]*file{},
		overlays: map[string]overlay{}, refused: map[string]error{},
		changed: make(chan struct{}), subs: map[*subscription]bool{},
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.families = c.Families; len(s.families) == 0 {
		s.families = []corev1.IPFamily{corev1.IPv4Protocol}
	}
	for _, k := range kinds.All() {
		s.table[k.Resource()] = k
		s.sets[k.Resource()] = &set{kind: k, entries: map[Key]entry{}}
	}
	for _, dir := range []string{c.Objects, c.Status} {
		if dir == "" {
			continue
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make the store's directory: %w", err)
		}
	}
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("read the objects in %s: %w", c.Objects, err)
	}
	return s, nil
}

// Kind is the kind that a resource (pods, gateways.networking.istio.io) names.
func (s *Store) Kind(resource string) (kinds.Kind, bool) {
	k, ok := s.table[resource]
	return k, ok
}

// Get is one object, or ErrNotFound.
func (s *Store) Get(k kinds.Kind, namespace, name string) (kinds.Object, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	e, ok := s.sets[k.Resource()].entries[keyOf(k, namespace, name)]
	if !ok {
		return nil, fmt.Errorf("%s %q %w", k.Resource(), name, ErrNotFound)
	}
	return e.shown, nil
}

// List is every object of a kind in a namespace, or in all when namespace is "", sorted by namespace and name.
func (s *Store) List(k kinds.Kind, namespace string) []kinds.Object {
	list, _ := s.ListAt(k, namespace)
	return list
}

// ListAt is List with the revision at which it was true.
func (s *Store) ListAt(k kinds.Kind, namespace string) ([]kinds.Object, uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var list []kinds.Object
	for key, e := range s.sets[k.Resource()].entries {
		if namespace == "" || key.Namespace == namespace {
			list = append(list, e.shown)
		}
	}
	slices.SortFunc(list, func(a, b kinds.Object) int {
		return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
	})
	return list, s.revision
}

// Refused tells which files are not in force as they are now, and why; their last good content is.
func (s *Store) Refused() map[string]error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make(map[string]error, len(s.refused))
	for path, err := range s.refused {
		out[filepath.Join(s.objects, path)] = err
	}
	return out
}

func keyOf(k kinds.Kind, namespace, name string) Key {
	switch {
	case !k.Namespaced:
		namespace = ""
	case namespace == "":
		namespace = "default"
	}
	return Key{namespace, name}
}
