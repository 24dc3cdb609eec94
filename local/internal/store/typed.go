package store

import (
	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// Get is one object by its type: Get[*corev1.Pod](s, "default", "web").
func Get[T kinds.Object](s *Store, namespace, name string) (T, error) {
	o, err := s.Get(KindFor[T](), namespace, name)
	if err != nil {
		var none T
		return none, err
	}
	return o.(T), nil
}

// List is every object of a type in a namespace, or in all when namespace is "".
func List[T kinds.Object](s *Store, namespace string) []T {
	objects := s.List(KindFor[T](), namespace)
	list := make([]T, len(objects))
	for i, o := range objects {
		list[i] = o.(T)
	}
	return list
}

// Update changes one object by a function that is given a copy of it.
func Update[T kinds.Object](s *Store, namespace, name string, f func(T) error) (T, error) {
	o, err := s.Update(KindFor[T](), namespace, name, func(o kinds.Object) error { return f(o.(T)) })
	if err != nil {
		var none T
		return none, err
	}
	return o.(T), nil
}

// KindFor is the kind of a type.
func KindFor[T kinds.Object]() kinds.Kind {
	var none T
	return kinds.Of(none)
}
