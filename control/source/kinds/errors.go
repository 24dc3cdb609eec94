package kinds

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Problem is one thing wrong with an object: where, what, and how to mend it where that is known.
type Problem struct {
	File string // "" when the object came from no file
	Line int    // 0 when unknown
	Path string // spec.http[0].route, "" for the object as a whole
	What string
	Hint string
}

func (p Problem) Error() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File)
		b.WriteByte(':')
	}
	if p.Line > 0 {
		fmt.Fprintf(&b, "%d:", p.Line)
	}
	if b.Len() > 0 {
		b.WriteByte(' ')
	}
	if p.Path != "" {
		b.WriteString(told(p.Path))
		b.WriteString(": ")
	}
	b.WriteString(told(p.What))
	if p.Hint != "" {
		b.WriteString("; ")
		b.WriteString(p.Hint)
	}
	return b.String()
}

// longest is how much of a path or a complaint is told: both may hold what somebody wrote.
const longest = 400

// told is a text of which somebody else may have written parts: not long, on one line, and nothing that a terminal obeys.
func told(s string) string {
	if len(s) <= longest && strings.IndexFunc(s, odd) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if b.Len() >= longest {
			b.WriteString("…")
			break
		}
		if odd(r) {
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

func odd(r rune) bool { return r == utf8.RuneError || !strconv.IsPrint(r) }

// Problems are all that is wrong with one file, in the order of its lines.
type Problems []Problem

// maxListed is how many problems one error spells out; a person mends a few at a time.
const maxListed = 20

func (ps Problems) Error() string {
	var lines []string
	for i, p := range ps {
		if i == maxListed {
			lines = append(lines, fmt.Sprintf("and %d more", len(ps)-maxListed))
			break
		}
		lines = append(lines, p.Error())
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.As find a single Problem.
func (ps Problems) Unwrap() []error {
	errs := make([]error, len(ps))
	for i, p := range ps {
		errs[i] = p
	}
	return errs
}

// Nearest is the known word that was probably meant by one that is not known, if one is close.
func Nearest(word string, known []string) (string, bool) { return nearest(word, known) }

// nearest is the known word that was probably meant, if one is close.
func nearest(word string, known []string) (string, bool) {
	best, at := "", 1+len(word)/3
	for _, k := range known {
		if strings.EqualFold(k, word) {
			return k, true
		}
		if d := distance(word, k, at); d < at || (d == at && best == "") {
			best, at = k, d
		}
	}
	return best, best != ""
}

// distance counts the edits (insert, delete, replace, swap neighbours) from a to b, giving up above limit.
func distance(a, b string, limit int) int {
	a, b = strings.ToLower(a), strings.ToLower(b)
	if len(a) > 64 || len(b) > 64 || len(a)-len(b) > limit || len(b)-len(a) > limit {
		return limit + 1
	}
	before, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], before[j-2]+1)
			}
		}
		before, prev, cur = prev, cur, before
	}
	return prev[len(b)]
}
