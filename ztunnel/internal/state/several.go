package state

import "slices"

// several maps keys to values of which a key mostly has one. Nothing but a map entry is spent on such a key.
type several[K, V comparable] struct {
	first map[K]V
	rest  map[K][]V // in order of arrival
}

func (m *several[K, V]) add(k K, v V) {
	if m.first == nil {
		m.first, m.rest = map[K]V{}, map[K][]V{}
	}
	if _, taken := m.first[k]; taken {
		m.rest[k] = append(m.rest[k], v)
		return
	}
	m.first[k] = v
}

func (m *several[K, V]) drop(k K, v V) {
	rest := m.rest[k]
	switch first, ok := m.first[k]; {
	case !ok:
		return
	case first != v:
		rest = slices.DeleteFunc(rest, func(x V) bool { return x == v })
	case len(rest) == 0:
		delete(m.first, k)
	default:
		m.first[k] = rest[0]
		rest = slices.Delete(rest, 0, 1)
	}
	if len(rest) == 0 {
		delete(m.rest, k)
	} else {
		m.rest[k] = rest
	}
}

// all gives the values of a key.
func (m *several[K, V]) all(k K) func(yield func(V) bool) {
	return func(yield func(V) bool) {
		first, ok := m.first[k]
		if !ok || !yield(first) || len(m.rest) == 0 {
			return
		}
		for _, v := range m.rest[k] {
			if !yield(v) {
				return
			}
		}
	}
}

func (m *several[K, V]) len() int { return len(m.first) + len(m.rest) }
