package state

import "github.com/ambit-mesh/ambit/identity"

// words lets equal strings of many workloads share their bytes: a mesh has few namespaces, nodes and services compared
// with its workloads. It forgets when it holds many, so that it keeps no word alive that nobody else uses.
type words map[string]string

const maxWords = 1 << 14

func (w *words) of(s string) string {
	if s == "" {
		return ""
	}
	if known, ok := (*w)[s]; ok {
		return known
	}
	if *w == nil || len(*w) >= maxWords {
		*w = words{}
	}
	(*w)[s] = s
	return s
}

// expected lets workloads of one identity share the list of it that their tunnels expect.
type expected map[identity.ID][]identity.ID

func (e *expected) of(id identity.ID) []identity.ID {
	if known, ok := (*e)[id]; ok {
		return known
	}
	if *e == nil || len(*e) >= maxWords {
		*e = expected{}
	}
	one := []identity.ID{id}
	(*e)[id] = one
	return one
}
