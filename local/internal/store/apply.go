package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	kjson "sigs.k8s.io/json"
)

// Action is what applying did to an object, in kubectl's words.
type Action string

// The actions.
const (
	Created    Action = "created"
	Configured Action = "configured"
	Unchanged  Action = "unchanged"
)

// File is YAML to apply, with the name that errors call it.
type File struct {
	Name string
	Data []byte
}

// Applied is one object of applied files.
type Applied struct {
	Object kinds.Object
	Action Action
}

// ApplyFiles applies files of objects, those without a namespace in the one given. Everything is checked before
// anything is done: an error, which names file and line, means that nothing was. dry only checks.
func (s *Store) ApplyFiles(files []File, namespace string, dry bool) ([]Applied, error) {
	var all []kinds.Located
	var errs []error
	for _, f := range files {
		found, err := kinds.Decode(f.Name, f.Data)
		if err == nil {
			err = problems(found)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all = append(all, found...)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	s.write.Lock()
	defer s.write.Unlock()
	coming := map[string]bool{}
	for _, l := range all {
		if k := kinds.Of(l.Object); k.Kind == "Namespace" {
			coming[l.Object.GetName()] = true
		} else if k.Namespaced && l.Object.GetNamespace() == "" {
			l.Object.SetNamespace(namespace)
		}
	}
	for _, l := range all {
		k := kinds.Of(l.Object)
		if err := s.admit(k, l.Object); err != nil && !(errors.Is(err, ErrNotFound) && coming[l.Object.GetNamespace()]) {
			errs = append(errs, fmt.Errorf("%s:%d: %w", l.File, l.Line, err))
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	slices.SortStableFunc(all, func(a, b kinds.Located) int { return namespacesFirst(a.Object) - namespacesFirst(b.Object) })
	s.dry = dry
	defer func() { s.dry = false }()
	var done []Applied
	for _, l := range all {
		o, action, err := s.apply(l.Object)
		if err != nil {
			return done, fmt.Errorf("%s:%d: %w", l.File, l.Line, err)
		}
		done = append(done, Applied{o, action})
	}
	return done, nil
}

func namespacesFirst(o kinds.Object) int {
	if _, ok := o.(*corev1.Namespace); ok {
		return 0
	}
	return 1
}

// Apply creates an object, or changes in the present one what its author says and what the author said last time and
// says no more; what others set stays.
func (s *Store) Apply(o kinds.Object) (kinds.Object, Action, error) {
	s.write.Lock()
	defer s.write.Unlock()
	return s.applyOne(o)
}

func (s *Store) applyOne(o kinds.Object) (kinds.Object, Action, error) {
	o = copyOf(o)
	if err := s.admit(kinds.Of(o), o); err != nil {
		return nil, "", err
	}
	return s.apply(o)
}

func (s *Store) apply(o kinds.Object) (kinds.Object, Action, error) {
	k := kinds.Of(o)
	key := keyOf(k, o.GetNamespace(), o.GetName())
	o.SetNamespace(key.Namespace)
	o.SetUID("")
	o.SetResourceVersion("")
	wanted, err := wantedOf(k, o)
	if err != nil {
		return nil, "", err
	}
	setAnnotation(o, corev1.LastAppliedConfigAnnotation, string(wanted)+"\n")
	old, exists := s.entry(k, key)
	if !exists {
		CopyStatus(o, k.New())
		created, err := s.put(k, o)
		return created, Created, err
	}
	next, err := threeWay(k, old.base, o, wanted)
	if err != nil {
		return nil, "", fmt.Errorf("apply %s %q: %w", k.Resource(), key.Name, err)
	}
	if err := immutable(old.base, next); err != nil {
		return nil, "", err
	}
	changed, err := s.put(k, next)
	if err != nil {
		return nil, "", err
	}
	if changed == old.shown {
		return changed, Unchanged, nil
	}
	return changed, Configured, nil
}

// wantedOf is what an author says of an object, as JSON.
func wantedOf(k kinds.Kind, o kinds.Object) ([]byte, error) {
	o = copyOf(o)
	all := o.GetAnnotations()
	delete(all, corev1.LastAppliedConfigAnnotation)
	o.SetAnnotations(all)
	CopyStatus(o, k.New())
	return kinds.EncodeJSON(o)
}

// threeWay merges what the author wants into the present object, knowing what the author wanted before.
func threeWay(k kinds.Kind, present, wantedObject kinds.Object, wanted []byte) (kinds.Object, error) {
	last := []byte(present.GetAnnotations()[corev1.LastAppliedConfigAnnotation])
	if len(last) == 0 {
		last = []byte("{}")
	}
	modified, err := kinds.EncodeJSON(wantedObject)
	if err != nil {
		return nil, err
	}
	current, err := kinds.EncodeJSON(present)
	if err != nil {
		return nil, err
	}
	var result []byte
	if Strategic(k) {
		meta, err := strategicpatch.NewPatchMetaFromStruct(k.New())
		if err != nil {
			return nil, fmt.Errorf("learn how %s merges: %w", k.Kind, err)
		}
		patch, err := strategicpatch.CreateThreeWayMergePatch(last, modified, current, meta, true)
		if err != nil {
			return nil, fmt.Errorf("compare with what is there: %w", err)
		}
		if result, err = strategicpatch.StrategicMergePatch(current, patch, k.New()); err != nil {
			return nil, fmt.Errorf("merge with what is there: %w", err)
		}
	} else if result, err = mergeThreeWay(last, modified, current); err != nil {
		return nil, err
	}
	next := k.New()
	if err := kjson.UnmarshalCaseSensitivePreserveInts(result, next); err != nil {
		return nil, fmt.Errorf("read the merged object: %w", err)
	}
	CopyStatus(next, present)
	return next, nil
}

// Strategic reports whether lists of a kind merge by key, as those of Kubernetes' own kinds do.
func Strategic(k kinds.Kind) bool {
	return !strings.HasSuffix(k.Group, "istio.io") && k.Group != "gateway.networking.k8s.io"
}

func mergeThreeWay(last, modified, current []byte) ([]byte, error) {
	var l, m, c map[string]any
	for _, in := range []struct {
		data []byte
		to   *map[string]any
	}{{last, &l}, {modified, &m}, {current, &c}} {
		if err := kjson.UnmarshalCaseSensitivePreserveInts(in.data, in.to); err != nil {
			return nil, fmt.Errorf("read an object to merge: %w", err)
		}
	}
	return json.Marshal(mergeMaps(l, m, c))
}

func mergeMaps(last, modified, current map[string]any) map[string]any {
	out := map[string]any{}
	for name, value := range current {
		_, was := last[name]
		if _, is := modified[name]; !was || is {
			out[name] = value
		}
	}
	for name, value := range modified {
		inner, isMap := value.(map[string]any)
		present, both := out[name].(map[string]any)
		if isMap && both {
			before, _ := last[name].(map[string]any)
			out[name] = mergeMaps(before, inner, present)
			continue
		}
		out[name] = value
	}
	return out
}
