package table

import (
	"fmt"
	"strings"
	"unicode"
)

// Plain makes what others wrote (names, reasons, annotations, logs of errors) safe to show on a terminal: signs that a
// terminal would obey, and those that reorder or hide text, are shown by their numbers. Line ends and tabs stay.
func Plain(s string) string {
	if strings.IndexFunc(s, commands) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case !commands(r):
			b.WriteRune(r)
		case r < ' ':
			b.WriteString("^" + string('@'+r))
		default:
			fmt.Fprintf(&b, "<U+%04X>", r)
		}
	}
	return b.String()
}

// commands tells whether a terminal does something else with a sign than show it.
func commands(r rune) bool {
	if r == '\n' || r == '\t' {
		return false
	}
	return unicode.Is(unicode.Cc, r) || unicode.Is(unicode.Bidi_Control, r) || unicode.Is(unicode.Cf, r) && r != '\u00ad' || r == unicode.ReplacementChar
}

// cell is a text that keeps to its line.
func cell(s string) string {
	return strings.NewReplacer("\r\n", " ", "\n", " ", "\t", " ").Replace(Plain(s))
}
