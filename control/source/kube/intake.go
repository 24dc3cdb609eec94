package kube

import (
	"encoding/json"
	"fmt"

	"github.com/cespare/xxhash/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/ambit-mesh/ambit/control/source"
	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// intake takes in the objects of one kind.
type intake struct {
	what
	s *Source

	have    map[string]held // guarded by s.mu: objects that exist, by key
	listed  bool            // guarded by s.mu: a list was complete
	version string          // guarded by s.mu: that is followed
}

// held is what is known of an object that exists.
type held struct {
	uid    types.UID
	sum    uint64       // of what it said when it was last understood
	object kinds.Object // in force; nil for nothing
	closed bool         // it only stands for what was never understood
}

// item is an object as it arrives, read.
type item struct {
	metav1.Object
	key    string
	sum    uint64
	object kinds.Object
	why    error        // that it is not understood
	closed kinds.Object // in that case and where nothing was understood before: what refuses, nil for nothing
}

// read makes an item of what the library decoded.
func (in *intake) read(o any) (any, error) {
	switch o := o.(type) {
	case *item:
		return o, nil
	case *unstructured.Unstructured:
		return in.readTree(o)
	case kinds.Object:
		trimMeta(o)
		in.trim(o)
		k := in.Kind
		o.GetObjectKind().SetGroupVersionKind(k.New().GetObjectKind().GroupVersionKind())
		m, ok := o.(interface{ Marshal() ([]byte, error) })
		if !ok {
			return nil, fmt.Errorf("a %s has no wire form", k.Kind)
		}
		data, err := m.Marshal()
		if err != nil {
			return nil, fmt.Errorf("write a %s: %w", k.Kind, err)
		}
		return &item{Object: o, key: source.Key(o.GetNamespace(), o.GetName()), sum: xxhash.Sum64(data), object: o}, nil
	}
	return nil, fmt.Errorf("the API server gave a %T in place of a %s", o, in.Kind.Kind)
}

// readTree reads an object of a kind that is defined in the cluster: anything may be in it.
func (in *intake) readTree(o *unstructured.Unstructured) (any, error) {
	tree := o.Object
	if status, ok := tree["status"].(map[string]any); ok && status["addresses"] != nil && in.Kind.Kind == "ServiceEntry" {
		tree["status"] = map[string]any{"addresses": status["addresses"]} // given once, and kept
	} else {
		delete(tree, "status")
	}
	trimHistory(o)
	data, err := json.Marshal(tree)
	if err != nil {
		return nil, fmt.Errorf("write a %s: %w", in.Kind.Kind, err)
	}
	it := &item{Object: o, key: source.Key(o.GetNamespace(), o.GetName()), sum: xxhash.Sum64(data)}
	if it.object, it.why = kinds.Check(tree); it.why != nil {
		it.closed = closed(in.Kind, o)
	}
	it.Object = &metav1.ObjectMeta{Name: o.GetName(), Namespace: o.GetNamespace(), UID: o.GetUID()}
	return it, nil
}

// Transformer reads objects as they stream in, so that a list is never in memory as the server sends it.
func (in *intake) Transformer() cache.TransformFunc { return in.read }

// Add is told of an object that is new or changed.
func (in *intake) Add(o any) error {
	it, err := in.item(o)
	if err != nil {
		return err
	}
	in.s.mu.Lock()
	defer in.s.mu.Unlock()
	in.putLocked(it)
	return nil
}

// Update is told of an object that changed.
func (in *intake) Update(o any) error { return in.Add(o) }

// Delete is told of an object that is gone.
func (in *intake) Delete(o any) error {
	key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(o)
	if err != nil {
		return err
	}
	in.s.mu.Lock()
	defer in.s.mu.Unlock()
	in.dropLocked(key)
	return nil
}

// Replace is told of all objects there are. What did not change is left alone.
func (in *intake) Replace(all []any, _ string) error {
	items := make([]*item, len(all))
	there := make(map[string]bool, len(all))
	for i, o := range all {
		it, err := in.item(o)
		if err != nil {
			return err
		}
		items[i], there[it.key] = it, true
	}
	in.s.mu.Lock()
	defer in.s.mu.Unlock()
	for key := range in.have {
		if !there[key] {
			in.dropLocked(key)
		}
	}
	for _, it := range items {
		in.putLocked(it)
	}
	in.completeLocked()
	return nil
}

// Resync has no meaning here.
func (in *intake) Resync() error { return nil }

func (in *intake) item(o any) (*item, error) {
	read, err := in.read(o)
	if err != nil {
		return nil, err
	}
	it, ok := read.(*item)
	if !ok {
		return nil, fmt.Errorf("read a %s as a %T", in.Kind.Kind, read)
	}
	return it, nil
}

// completeLocked says that all objects of the kind are known.
func (in *intake) completeLocked() {
	if !in.listed {
		in.listed = true
		in.s.waiting--
	}
	in.s.problemLocked(place{in, ""}, source.Problem{})
	in.s.signal()
}

func (in *intake) putLocked(it *item) {
	p, ref := place{in, it.key}, source.Ref{Kind: in.Kind, Key: it.key}
	had, known := in.have[it.key]
	switch {
	case known && had.uid == it.GetUID() && had.sum == it.sum:
		return
	case it.why == nil:
		in.have[it.key] = held{it.GetUID(), it.sum, it.object, false}
		in.s.changeLocked(p, change{it.object})
		in.s.problemLocked(p, source.Problem{})
	case known && had.uid == it.GetUID() && had.object != nil && !had.closed: // what it said before stays in force
		had.sum = it.sum
		in.have[it.key] = had
		in.s.problemLocked(p, source.Problem{Why: it.why.Error(), Kept: []source.Ref{ref}})
	default:
		in.have[it.key] = held{it.GetUID(), it.sum, it.closed, it.closed != nil}
		if it.closed != nil || known && had.object != nil {
			in.s.changeLocked(p, change{it.closed})
		}
		why := source.Problem{Why: it.why.Error()}
		if it.closed != nil {
			why.Closed = []source.Ref{ref}
		} else {
			why.Unread = []source.Ref{ref}
		}
		in.s.problemLocked(p, why)
	}
}

func (in *intake) dropLocked(key string) {
	had, known := in.have[key]
	if !known {
		return
	}
	delete(in.have, key)
	p := place{in, key}
	if had.object != nil {
		in.s.changeLocked(p, change{})
	}
	in.s.problemLocked(p, source.Problem{})
}
