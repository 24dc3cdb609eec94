package state

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
