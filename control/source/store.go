package source

import (
	"errors"
	"reflect"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/collection"
	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// Store fills Objects. Its owner is the source; what Apply is given must never be written again.
type Store struct {
	Graph   *collection.Graph
	Objects *Objects
	// Applied is told of each batch, for metrics. It is set before the source runs; may be nil.
	Applied func(Batch)

	sets map[reflect.Type]filler
}

// Batch is what changed at once.
type Batch struct {
	Kinds  map[string]int // how many objects of each kind
	Waited time.Duration  // of the first of them for the others
	Took   time.Duration  // to derive everything that depends on them
}

// ErrAnother tells that another control plane has created an object first; the source will show it.
var ErrAnother = errors.New("another control plane has created it")

// Problem is something that the source cannot read.
type Problem struct {
	File  string
	Since time.Time
	Why   string
	// Kept are the objects of an earlier reading that stay in force in place of it.
	Kept []Ref
	// Closed are objects that were never understood, for which something stands that refuses all they may be about.
	Closed []Ref
	// Unread are objects that were never understood, of which nothing is in force.
	Unread []Ref
}

// Ref names an object.
type Ref struct {
	Kind kinds.Kind
	Key  string // as Key gives it
}

// RefOf is the name of o.
func RefOf(o kinds.Object) Ref { return Ref{kinds.Of(o), Key(o.GetNamespace(), o.GetName())} }

// MarshalText is how debug pages show it: resource/namespace/name.
func (r Ref) MarshalText() ([]byte, error) { return []byte(r.Kind.Resource() + "/" + r.Key), nil }

// Names are the namespace, "" for a kind without, and the name.
func (r Ref) Names() (namespace, name string) {
	if ns, name, ok := strings.Cut(r.Key, "/"); ok {
		return ns, name
	}
	return "", r.Key
}

// filler is one set, whatever its type.
type filler interface {
	put(*collection.Wave, kinds.Object)
	drop(*collection.Wave, string)
	each(func(kinds.Object))
	synced()
}

type filled[T any] struct{ *collection.Set[T] }

func (f filled[T]) put(w *collection.Wave, o kinds.Object) {
	if v, ok := o.(T); ok {
		f.Upsert(w, v)
	}
}
func (f filled[T]) drop(w *collection.Wave, key string) { f.Delete(w, key) }
func (f filled[T]) each(do func(kinds.Object)) {
	for _, v := range f.All() {
		if o, ok := any(v).(kinds.Object); ok {
			do(o)
		}
	}
}
func (f filled[T]) synced() { f.MarkSynced() }

// NewStore makes empty collections in a graph of their own.
func NewStore() *Store {
	s := &Store{Graph: collection.NewGraph(), Objects: &Objects{}, sets: map[reflect.Type]filler{}}
	o := s.Objects
	add(s, &o.Namespaces)
	add(s, &o.Nodes)
	add(s, &o.Pods)
	add(s, &o.Services)
	add(s, &o.ServiceAccounts)
	add(s, &o.ConfigMaps)
	add(s, &o.Secrets)
	add(s, &o.EndpointSlices)
	add(s, &o.Deployments)
	add(s, &o.Gateways)
	add(s, &o.VirtualServices)
	add(s, &o.DestinationRules)
	add(s, &o.ServiceEntries)
	add(s, &o.WorkloadEntries)
	add(s, &o.WorkloadGroups)
	add(s, &o.AuthorizationPolicies)
	add(s, &o.PeerAuthentications)
	add(s, &o.RequestAuthentications)
	add(s, &o.Telemetries)
	add(s, &o.GatewayClasses)
	add(s, &o.KubeGateways)
	add(s, &o.HTTPRoutes)
	add(s, &o.GRPCRoutes)
	add(s, &o.TCPRoutes)
	add(s, &o.TLSRoutes)
	add(s, &o.ReferenceGrants)
	add(s, &o.BackendTLSPolicies)
	return s
}

func add[T interface {
	comparable
	kinds.Object
}](s *Store, into *collection.Collection[T]) {
	set := collection.NewSet(s.Graph,
		func(o T) string { return Key(o.GetNamespace(), o.GetName()) },
		func(a, b T) bool { return a == b }) // a source keeps the pointer of what did not change
	*into = set
	s.sets[reflect.TypeFor[T]()] = filled[T]{set}
}

// Reads reports whether the control plane reads objects of o's kind.
func (s *Store) Reads(o kinds.Object) bool {
	_, ok := s.sets[reflect.TypeOf(o)]
	return ok
}

// Apply changes the collections in one wave. Kinds that are not read are passed over.
func (s *Store) Apply(put []kinds.Object, drop []Ref) { s.ApplyAfter(0, put, drop) }

// ApplyAfter is Apply of changes the first of which has waited for the others.
func (s *Store) ApplyAfter(waited time.Duration, put []kinds.Object, drop []Ref) {
	if s.Applied != nil {
		b := Batch{Kinds: map[string]int{}, Waited: waited}
		for _, o := range put {
			b.Kinds[kinds.Of(o).Kind]++
		}
		for _, r := range drop {
			b.Kinds[r.Kind.Kind]++
		}
		begin := time.Now()
		defer func() { b.Took = time.Since(begin); s.Applied(b) }()
	}
	s.Graph.Change(func(w *collection.Wave) {
		for _, r := range drop {
			if set, ok := s.sets[reflect.TypeOf(r.Kind.New())]; ok {
				set.drop(w, r.Key)
			}
		}
		for _, o := range put {
			if set, ok := s.sets[reflect.TypeOf(o)]; ok {
				set.put(w, o)
			}
		}
	})
}

// Each runs over all objects, kind by kind.
func (s *Store) Each(do func(kinds.Object)) {
	for _, set := range s.sets {
		set.each(do)
	}
}

// MarkSynced says that the first full contents are there.
func (s *Store) MarkSynced() {
	for _, set := range s.sets {
		set.synced()
	}
}
