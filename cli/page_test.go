package cli

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/fatih/color"
)

func TestPagesFitTheirTerminal(t *testing.T) {
	p := page{title: "From a to b"}
	p.say("travels", plain, "by HBONE (mutual TLS) to 10.244.2.6:15008, which must be spiffe://cluster.local/ns/default/sa/bookinfo-productpage")
	p.more(fine, "allowed: no ALLOW policy applies")
	for _, c := range []struct {
		width int
		want  string
	}{
		{0, "From a to b\n1. travels      by HBONE (mutual TLS) to 10.244.2.6:15008, which must be spiffe://cluster.local/ns/default/sa/bookinfo-productpage\n                allowed: no ALLOW policy applies\n"},
		{80, "From a to b\n1. travels      by HBONE (mutual TLS) to 10.244.2.6:15008, which must be\n                  spiffe://cluster.local/ns/default/sa/bookinfo-productpage\n                allowed: no ALLOW policy applies\n"},
		{10, "From a to b\n1. travels      by HBONE (mutual TLS) to 10.244.2.6:15008, which must be spiffe://cluster.local/ns/default/sa/bookinfo-productpage\n                allowed: no ALLOW policy applies\n"},
	} {
		var b bytes.Buffer
		if err := p.write(&b, c.width, newPaint(&b)); err != nil {
			t.Fatal(err)
		}
		if b.String() != c.want {
			t.Errorf("%d columns:\n%swant\n%s", c.width, b.String(), c.want)
		}
	}
}

func TestPagesAreColouredOnlyWhenAsked(t *testing.T) {
	p := page{title: "t"}
	p.say("result", bad, "DENIED")
	on := color.New(color.FgRed)
	on.EnableColor()
	red := func(s string) string { return on.Sprint(s) }
	same := func(s string) string { return s }
	var b bytes.Buffer
	if err := p.write(&b, 0, paint{good: same, bad: red, warn: same, faint: same, bold: same}); err != nil {
		t.Fatal(err)
	}
	if want := "t\n1. result       \x1b[31mDENIED\x1b[0m\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}

func FuzzWrap(f *testing.F) {
	f.Add("some words of a text that is long enough", 30)
	f.Fuzz(func(t *testing.T, text string, width int) {
		parts := wrap(text, width)
		if got := strings.Join(parts, " "); got != text {
			t.Errorf("%q became %q", text, got)
		}
		for i, p := range parts {
			if width >= 30 && utf8.RuneCountInString(p) > width && strings.Contains(p, " ") && i < len(parts)-1 {
				t.Errorf("part %q is wider than %d", p, width)
			}
		}
	})
}
