// Package table shows objects as kubectl's users know them: one row each, columns by kind.
package table

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// Options say which columns there are besides a kind's own.
type Options struct {
	// Now is what ages count from.
	Now time.Time
	// Wide adds the columns of -o wide.
	Wide bool
	// Namespaces adds a column of namespaces (-A).
	Namespaces bool
	// Labels adds a column of labels (--show-labels).
	Labels bool
	// NoHeaders leaves the first line out.
	NoHeaders bool
	// Prefix puts the kind before each name, as when several kinds are shown.
	Prefix bool
}

// column is a title and how to read it from an object of its kind.
type column struct {
	title string
	wide  bool
	value func(o kinds.Object, opt Options) string
}

// Write shows objects of one kind.
func Write(w io.Writer, kind kinds.Kind, objects []kinds.Object, opt Options) error {
	return (&Printer{}).Write(w, kind, objects, opt)
}

// Printer shows objects of one kind in several portions, whose columns stand below each other.
type Printer struct{ width []int }

// Write shows one portion.
func (p *Printer) Write(w io.Writer, kind kinds.Kind, objects []kinds.Object, opt Options) error {
	cols := shown(kind, opt)
	rows := make([][]string, 0, len(objects)+1)
	if !opt.NoHeaders {
		head := make([]string, len(cols))
		for i, c := range cols {
			head[i] = c.title
		}
		rows = append(rows, head)
	}
	for _, o := range objects {
		row := make([]string, len(cols))
		for i, c := range cols {
			row[i] = c.value(o, opt)
		}
		rows = append(rows, row)
	}
	return p.Rows(w, rows)
}

// Rows shows one portion that is made already.
func (p *Printer) Rows(w io.Writer, rows [][]string) error {
	var err error
	p.width, err = align(w, plainly(rows), p.width)
	return err
}

// shown lists the columns for a kind under the options.
func shown(kind kinds.Kind, opt Options) []column {
	var cols []column
	if opt.Namespaces && kind.Namespaced {
		cols = append(cols, column{title: "NAMESPACE", value: func(o kinds.Object, _ Options) string { return o.GetNamespace() }})
	}
	if kind.Kind != "Event" { // an event's name says nothing
		cols = append(cols, column{title: "NAME", value: func(o kinds.Object, opt Options) string {
			if opt.Prefix {
				return Name(kind, o)
			}
			return o.GetName()
		}})
	}
	for _, c := range columnsOf(kind) {
		if !c.wide || opt.Wide {
			cols = append(cols, c)
		}
	}
	if opt.Labels {
		cols = append(cols, column{title: "LABELS", value: func(o kinds.Object, _ Options) string { return Labels(o.GetLabels()) }})
	}
	return cols
}

// Align writes rows in columns three spaces apart, the last one unpadded. What cells say is shown, never obeyed.
func Align(w io.Writer, rows [][]string) error {
	_, err := align(w, plainly(rows), nil)
	return err
}

// AlignColored is Align for cells of our own, whose colours are meant.
func AlignColored(w io.Writer, rows [][]string) error {
	_, err := align(w, rows, nil)
	return err
}

func plainly(rows [][]string) [][]string {
	out := make([][]string, len(rows))
	for i, row := range rows {
		out[i] = make([]string, len(row))
		for j, text := range row {
			out[i][j] = cell(text)
		}
	}
	return out
}

// align starts from widths that columns have already, and gives those that they have then.
func align(w io.Writer, rows [][]string, width []int) ([]int, error) {
	for _, row := range rows {
		for i, cell := range row {
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], shownWidth(cell))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		for i, cell := range row {
			b.WriteString(cell)
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", width[i]-shownWidth(cell)+3))
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return width, err
}

// shownWidth is how many columns of a terminal a cell takes: colours take none.
func shownWidth(cell string) int {
	n := 0
	for colour := false; cell != ""; {
		r, size := utf8.DecodeRuneInString(cell)
		cell = cell[size:]
		switch {
		case r == '\x1b':
			colour = true
		case colour:
			colour = r != 'm'
		default:
			n++
		}
	}
	return n
}

// Name is how an object is named in one word: pod/sleep-1, gateway.networking.istio.io/web.
func Name(kind kinds.Kind, o kinds.Object) string {
	word := strings.ToLower(kind.Kind)
	if kind.Group != "" {
		word += "." + kind.Group
	}
	return word + "/" + o.GetName()
}

// Labels joins labels by key, or says there are none.
func Labels(l map[string]string) string {
	if len(l) == 0 {
		return "<none>"
	}
	parts := make([]string, 0, len(l))
	for _, k := range slices.Sorted(maps.Keys(l)) {
		parts = append(parts, k+"="+l[k])
	}
	return strings.Join(parts, ",")
}

// Age is a duration as kubectl shows ages: two units at the most, fewer as it grows.
func Age(since, now time.Time) string {
	if since.IsZero() {
		return "<unknown>"
	}
	d := max(now.Sub(since), 0)
	s, m, h, days := int(d.Seconds()), int(d.Minutes()), int(d.Hours()), int(d.Hours())/24
	two := func(a int, ua string, b int, ub string) string {
		if b == 0 {
			return fmt.Sprintf("%d%s", a, ua)
		}
		return fmt.Sprintf("%d%s%d%s", a, ua, b, ub)
	}
	switch {
	case s < 120:
		return fmt.Sprintf("%ds", s)
	case m < 10:
		return two(m, "m", s%60, "s")
	case m < 180:
		return fmt.Sprintf("%dm", m)
	case h < 8:
		return two(h, "h", m%60, "m")
	case h < 48:
		return fmt.Sprintf("%dh", h)
	case days < 8:
		return two(days, "d", h%24, "h")
	case days < 730:
		return fmt.Sprintf("%dd", days)
	}
	return two(days/365, "y", days%365, "d")
}
