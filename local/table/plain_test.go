package table

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestUI02WhatOthersWroteCommandsNoTerminal(t *testing.T) {
	for in, want := range map[string]string{
		"plain text, ünïcode → ✔": "plain text, ünïcode → ✔",
		"a\x1b[2Jb":               "a^[[2Jb",
		"\x1b]0;title\x07":        "^[]0;title^G",
		"over\rwritten":           "over^Mwritten",
		"back\b\b":                "back^H^H",
		"c1\u009b31m":             "c1<U+009B>31m",
		"del\x7f":                 "del<U+007F>",
		"rev\u202eersed":          "rev<U+202E>ersed",
		"zero\u200bwidth":         "zero<U+200B>width",
		"two\nlines\tand a tab":   "two\nlines\tand a tab",
	} {
		if got := Plain(in); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
	var b bytes.Buffer
	if err := Align(&b, [][]string{{"A", "B"}, {"x\ny", "\x1b[31mred"}}); err != nil {
		t.Fatal(err)
	}
	if want := "A     B\nx y   ^[[31mred\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}

func FuzzPlain(f *testing.F) {
	f.Add("a\x1b[0mb\u202e")
	f.Fuzz(func(t *testing.T, s string) {
		got := Plain(s)
		if strings.ContainsAny(got, "\x1b\x07\x08\r\x00\u009b\u202e") || !utf8.ValidString(got) && utf8.ValidString(s) {
			t.Errorf("%q", got)
		}
	})
}
