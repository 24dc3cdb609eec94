package hostview

import (
	"strconv"
	"strings"
)

// values are the strings that a key of a TOML file has, wherever it stands, in order: one, or those of a list. It reads what
// runtimes write: keys on lines of their own, strings in either quotes, lists over several lines.
func values(toml, key string) [][]string {
	var all [][]string
	lines := strings.Split(toml, "\n")
	for i := 0; i < len(lines); i++ {
		k, v, ok := strings.Cut(uncomment(lines[i]), "=")
		if !ok || strings.TrimSpace(k) != key {
			continue
		}
		v = strings.TrimSpace(v)
		if strings.HasPrefix(v, "[") {
			for !strings.HasSuffix(v, "]") && i+1 < len(lines) {
				i++
				v += strings.TrimSpace(uncomment(lines[i]))
			}
			v = strings.TrimSuffix(strings.TrimPrefix(v, "["), "]")
		}
		var words []string
		for w := range strings.SplitSeq(v, ",") {
			if w = unquote(strings.TrimSpace(w)); w != "" {
				words = append(words, w)
			}
		}
		all = append(all, words)
	}
	return all
}

// uncomment is a line without its comment; no value here has a # in it.
func uncomment(line string) string {
	line, _, _ = strings.Cut(line, "#")
	return strings.TrimSpace(line)
}

func unquote(w string) string {
	if s, err := strconv.Unquote(w); err == nil && strings.HasPrefix(w, `"`) {
		return s
	}
	if len(w) >= 2 && w[0] == '\'' && w[len(w)-1] == '\'' {
		return w[1 : len(w)-1]
	}
	return ""
}
