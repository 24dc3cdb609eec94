package store

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Create adds an object. With only metadata.generateName it gets a name of its own.
func (s *Store) Create(o kinds.Object) (kinds.Object, error) {
	s.write.Lock()
	defer s.write.Unlock()
	return s.create(o)
}

func (s *Store) create(o kinds.Object) (kinds.Object, error) {
	o = copyOf(o)
	k := kinds.Of(o)
	if o.GetName() == "" && o.GetGenerateName() != "" {
		o.SetName(o.GetGenerateName() + RandomSuffix(5))
	}
	o.SetUID("") // the server's to give
	if err := s.admit(k, o); err != nil {
		return nil, err
	}
	if _, ok := s.entry(k, keyOf(k, o.GetNamespace(), o.GetName())); ok {
		return nil, fmt.Errorf("%s %q %w", k.Resource(), o.GetName(), ErrExists)
	}
	return s.put(k, o)
}

// Update changes an object by f, which is given a copy as it is on disk. When f sets another resourceVersion than the
// object has, that is ErrConflict. A change that changes nothing is not recorded.
func (s *Store) Update(k kinds.Kind, namespace, name string, f func(kinds.Object) error) (kinds.Object, error) {
	s.write.Lock()
	defer s.write.Unlock()
	return s.update(k, keyOf(k, namespace, name), f)
}

func (s *Store) update(k kinds.Kind, key Key, f func(kinds.Object) error) (kinds.Object, error) {
	e, ok := s.entry(k, key)
	if !ok {
		return nil, fmt.Errorf("%s %q %w", k.Resource(), key.Name, ErrNotFound)
	}
	next := copyOf(e.base)
	if err := f(next); err != nil {
		return nil, err
	}
	if rv := next.GetResourceVersion(); rv != "" && rv != e.base.GetResourceVersion() && rv != e.shown.GetResourceVersion() {
		return nil, fmt.Errorf("%s %q %w: it is at resource version %s, not %s", k.Resource(), key.Name, ErrConflict, e.base.GetResourceVersion(), rv)
	}
	if next.GetName() != key.Name {
		return nil, fmt.Errorf("%s %q %w: its name cannot be changed", k.Resource(), key.Name, ErrInvalid)
	}
	next.SetNamespace(key.Namespace)
	if err := s.admit(k, next); err != nil {
		return nil, err
	}
	return s.put(k, next)
}

// DeleteOptions say how to delete.
type DeleteOptions struct {
	// Grace is how long a pod may take to end; nil is the pod's own wish. 0 removes it at once: kubelet says so when it is gone.
	Grace *time.Duration
	// UID, if set, is the only object meant; another of that name is ErrConflict.
	UID types.UID
}

// Delete removes an object. A pod on a node, a namespace and what has finalizers is only marked; whoever finalises it
// removes it.
func (s *Store) Delete(k kinds.Kind, namespace, name string, opts DeleteOptions) error {
	s.write.Lock()
	defer s.write.Unlock()
	return s.remove(k, keyOf(k, namespace, name), opts)
}

func (s *Store) remove(k kinds.Kind, key Key, opts DeleteOptions) error {
	e, ok := s.entry(k, key)
	if !ok {
		return fmt.Errorf("%s %q %w", k.Resource(), key.Name, ErrNotFound)
	}
	if opts.UID != "" && opts.UID != e.base.GetUID() {
		return fmt.Errorf("%s %q %w: its uid is %s, not %s", k.Resource(), key.Name, ErrConflict, e.base.GetUID(), opts.UID)
	}
	now := opts.Grace != nil && *opts.Grace == 0
	namespaceLives := k.Kind == "Namespace" && !now
	podLives := nodeOf(e.base) != "" && !now
	if !namespaceLives && !podLives && len(e.base.GetFinalizers()) == 0 {
		return s.drop(k, key, e)
	}
	next := copyOf(e.base)
	if next.GetDeletionTimestamp() == nil {
		grace := int64(0)
		if pod, ok := next.(*corev1.Pod); ok {
			grace = 30
			if pod.Spec.TerminationGracePeriodSeconds != nil {
				grace = *pod.Spec.TerminationGracePeriodSeconds
			}
			if opts.Grace != nil {
				grace = int64(opts.Grace.Seconds())
			}
		}
		next.SetDeletionTimestamp(new(metav1.NewTime(time.Now().Add(time.Duration(grace) * time.Second).Truncate(time.Second))))
		next.SetDeletionGracePeriodSeconds(&grace)
	}
	if ns, ok := next.(*corev1.Namespace); ok {
		ns.Status.Phase = corev1.NamespaceTerminating
	}
	_, err := s.put(k, next)
	return err
}

// put makes next the present state of its object. Whoever calls holds s.write and does not use next afterwards.
func (s *Store) put(k kinds.Kind, next kinds.Object) (kinds.Object, error) {
	next.GetObjectKind().SetGroupVersionKind(groupVersionKind(k))
	key := keyOf(k, next.GetNamespace(), next.GetName())
	next.SetNamespace(key.Namespace)
	next.SetManagedFields(nil)
	old, exists := s.entry(k, key)
	if exists {
		keepServerFields(old.base, next)
	}
	setDefaults(next)
	if err := families(next, s.families); err != nil {
		return nil, err
	}
	if next.GetUID() == "" {
		next.SetUID(newUID())
	}
	if created := next.GetCreationTimestamp(); created.IsZero() {
		next.SetCreationTimestamp(metav1.NewTime(time.Now().Truncate(time.Second)))
	}
	if next.GetGeneration() == 0 && hasGeneration(next) {
		next.SetGeneration(1)
	}
	b, err := bodyOf(next)
	if err != nil {
		return nil, err
	}
	if exists {
		if b.equal(old.body) {
			return old.shown, nil
		}
		if hasGeneration(next) && string(b.rest) != string(old.body.rest) {
			next.SetGeneration(old.base.GetGeneration() + 1)
			if b, err = bodyOf(next); err != nil {
				return nil, err
			}
		}
	}
	if next.GetDeletionTimestamp() != nil && len(next.GetFinalizers()) == 0 && exists && len(old.base.GetFinalizers()) > 0 &&
		nodeOf(next) == "" && k.Kind != "Namespace" {
		return next, s.drop(k, key, old)
	}
	if s.dry {
		return next, nil
	}
	return s.commit(k, key, next, b, true)
}

// commit gives next the next revision, writes its file and shows it to everybody.
func (s *Store) commit(k kinds.Kind, key Key, next kinds.Object, b body, save bool) (kinds.Object, error) {
	revision := s.Revision() + 1
	next.SetResourceVersion(strconv.FormatUint(revision, 10))
	if save {
		if err := s.save(k, key, next); err != nil {
			return nil, err
		}
	}
	shown := s.withOverlay(k, key, next)
	s.mu.Lock()
	defer s.mu.Unlock()
	set := s.sets[k.Resource()]
	e := Event{Type: Added, Revision: revision, Object: shown}
	if old, ok := set.entries[key]; ok {
		e.Type, e.Old = Modified, old.shown
	}
	s.revision = revision
	set.entries[key] = entry{base: next, shown: shown, body: b}
	s.recordLocked(set, e)
	return shown, nil
}

// drop takes an object away, its file first.
func (s *Store) drop(k kinds.Kind, key Key, old entry) error {
	if s.dry {
		return nil
	}
	if err := s.unsave(k, key); err != nil {
		return err
	}
	last := copyOf(old.shown)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revision++
	last.SetResourceVersion(strconv.FormatUint(s.revision, 10))
	set := s.sets[k.Resource()]
	delete(set.entries, key)
	s.recordLocked(set, Event{Type: Deleted, Revision: s.revision, Object: last, Old: old.shown})
	return nil
}

func (s *Store) entry(k kinds.Kind, key Key) (entry, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	e, ok := s.sets[k.Resource()].entries[key]
	return e, ok
}

// admit refuses what must not become an object.
func (s *Store) admit(k kinds.Kind, o kinds.Object) error {
	key := keyOf(k, o.GetNamespace(), o.GetName())
	if key.Name == "" {
		return fmt.Errorf("%s %w: it has no name", k.Kind, ErrInvalid)
	}
	if why := kinds.BadName(k, key.Name); why != "" {
		return fmt.Errorf("%s %w: %s", k.Kind, ErrInvalid, why)
	}
	if ps := slices.Concat(check(o), kinds.Validate(o)); len(ps) > 0 {
		return fmt.Errorf("%s %q %w: %w", k.Kind, key.Name, ErrInvalid, ps)
	}
	old, exists := s.entry(k, key)
	if exists {
		return immutable(old.base, o)
	}
	if !k.Namespaced {
		return nil
	}
	ns, ok := s.entry(s.table["namespaces"], Key{Name: key.Namespace})
	if !ok {
		return fmt.Errorf("%s %q: namespace %q %w", k.Resource(), key.Name, key.Namespace, ErrNotFound)
	}
	if ns.base.GetDeletionTimestamp() != nil {
		return fmt.Errorf("%s %q %w: namespace %q is being deleted", k.Resource(), key.Name, ErrInvalid, key.Namespace)
	}
	return nil
}

// keepServerFields carries over what a client may leave out and cannot change.
func keepServerFields(old, next kinds.Object) {
	next.SetUID(old.GetUID())
	next.SetCreationTimestamp(old.GetCreationTimestamp())
	next.SetGeneration(old.GetGeneration())
	if next.GetDeletionTimestamp() == nil {
		next.SetDeletionTimestamp(old.GetDeletionTimestamp())
		next.SetDeletionGracePeriodSeconds(old.GetDeletionGracePeriodSeconds())
	}
	if was, ok := old.(*corev1.Service); ok {
		is := next.(*corev1.Service)
		if is.Spec.ClusterIP == "" && is.Spec.Type != corev1.ServiceTypeExternalName {
			is.Spec.ClusterIP, is.Spec.ClusterIPs = was.Spec.ClusterIP, was.Spec.ClusterIPs
		}
		for i := range is.Spec.Ports {
			for _, p := range was.Spec.Ports {
				if is.Spec.Ports[i].NodePort == 0 && p.Name == is.Spec.Ports[i].Name && p.Port == is.Spec.Ports[i].Port && is.Spec.Type != corev1.ServiceTypeClusterIP && is.Spec.Type != "" {
					is.Spec.Ports[i].NodePort = p.NodePort
				}
			}
		}
	}
}

// hasGeneration reports whether the kind counts changes of its specification.
func hasGeneration(o kinds.Object) bool {
	return reflect.ValueOf(o).Elem().FieldByName("Spec").IsValid()
}

// RandomSuffix is n letters and digits as Kubernetes puts behind names: no vowels, so that they form no words.
func RandomSuffix(n int) string {
	const alphabet = "bcdfghjklmnpqrstvwxz2456789"
	out := make([]byte, n)
	for i := range out {
		out[i] = alphabet[rand.IntN(len(alphabet))]
	}
	return string(out)
}
