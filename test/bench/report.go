package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// table is rows of words under a head.
type table struct {
	title string
	head  []string
	rows  [][]string
}

// tables are all that is to be shown.
func (r *result) tables() []table {
	var all []table
	for _, load := range r.loads {
		all = append(all, r.traffic(load))
	}
	if len(r.memory) > 0 {
		all = append(all, r.resident())
	}
	if len(r.times) > 0 || r.plugin.Count > 0 {
		all = append(all, r.changes())
	}
	return all
}

// kinds of figures in a table of traffic, with how they are written.
type columnKind struct {
	f     figure
	head  string
	best  func([]float64) float64 // beside the median
	digit int
}

func columns(load string) []columnKind {
	lowest := func(v []float64) float64 { return slices.Min(v) }
	highest := func(v []float64) float64 { return slices.Max(v) }
	switch {
	case strings.HasPrefix(load, "bulk"):
		return []columnKind{{speed, "GB/s, median (best)", highest, 2}, {perUnit, "CPU-s/GB, median (least)", lowest, 2}, {allocs, "allocations/GB", nil, 0}}
	case strings.HasPrefix(load, "new"):
		return []columnKind{{rate, "connections/s, median (best)", highest, 0}, {p50, "p50 µs", lowest, 0}, {p99, "p99 µs", lowest, 0}, {perUnit, "CPU µs each, median (least)", lowest, 0}, {allocs, "allocations each", nil, 0}}
	}
	return []columnKind{{rate, "per second, median (best)", highest, 0}, {p50, "p50 µs", lowest, 0}, {p99, "p99 µs", lowest, 0}, {perUnit, "CPU µs each, median (least)", lowest, 1}, {allocs, "allocations each", nil, 1}}
}

func (r *result) traffic(load string) table {
	t := table{title: load, head: []string{""}}
	cols := columns(load)
	for _, c := range cols {
		t.head = append(t.head, c.head)
	}
	t.head = append(t.head, "CPU / plain copy")
	if r.has(istio) {
		t.head = append(t.head, "CPU / Istio's", cols[0].f.String()+" / Istio's")
	}
	for _, lane := range r.lanes {
		row := []string{lane}
		for _, c := range cols {
			v := r.column(load, lane, c.f)
			if len(v) == 0 {
				row = append(row, "")
				continue
			}
			text := fmt.Sprintf("%.*f", c.digit, median(v))
			if c.best != nil {
				text += fmt.Sprintf(" (%.*f)", c.digit, c.best(v))
			}
			row = append(row, text)
		}
		row = append(row, times(r.ratio(load, perUnit, lane, plain)))
		if r.has(istio) {
			row = append(row, times(r.ratio(load, perUnit, lane, istio)), times(r.ratio(load, cols[0].f, lane, istio)))
		}
		t.rows = append(t.rows, row)
	}
	return t
}

// String is a figure's name in a head.
func (f figure) String() string {
	if f == rate {
		return "rate"
	}
	return string(f)
}

// times is a ratio; nothing where there is none.
func times(v float64) string {
	if v == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", v)
}

func (r *result) resident() table {
	t := table{title: "resident memory of the two proxies together, MiB", head: []string{"", "idle mesh", "1 000 idle connections", "10 000", "KiB a connection, each proxy", "after all load"}}
	for _, lane := range r.lanes {
		base, ok := r.memory[memoryKey{lane, 0}]
		if !ok {
			continue
		}
		row := []string{lane}
		most := 0
		for _, count := range []int{0, 1000, 10_000} {
			n, ok := r.memory[memoryKey{lane, count}]
			if !ok {
				row = append(row, "")
				continue
			}
			most = count
			row = append(row, fmt.Sprintf("%.1f", float64(n)/(1<<20)))
		}
		each := ""
		if most > 0 {
			each = fmt.Sprintf("%.1f", float64(r.memory[memoryKey{lane, most}]-base)/float64(most)/2/1024)
		}
		after := ""
		if n, ok := r.memory[memoryKey{lane, afterLoad}]; ok {
			after = fmt.Sprintf("%.1f", float64(n)/(1<<20))
		}
		t.rows = append(t.rows, append(row, each, after))
	}
	if r.agents > 0 {
		t.rows = append(t.rows, []string{"ambit-node, the largest", fmt.Sprintf("%.1f", float64(r.agents)/(1<<20)), "", "", "", ""})
	}
	return t
}

func (r *result) changes() table {
	t := table{title: "from a change to its effect", head: []string{"", "least", "p50", "p99", "most", "times", "promised"}}
	names := make([]string, 0, len(r.times))
	for n := range r.times {
		names = append(names, n)
	}
	slices.Sort(names)
	ms := func(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond)) }
	for _, n := range names {
		all := r.times[n]
		t.rows = append(t.rows, []string{n, ms(slices.Min(all)), ms(quantile(all, .5)), ms(quantile(all, .99)), ms(slices.Max(all)), fmt.Sprint(len(all)), promise(n)})
	}
	if p := r.plugin; p.Count > 0 {
		t.rows = append(t.rows, []string{"call of ambit-cni", ms(p.Min), ms(p.P50), ms(p.P99), ms(p.Max), fmt.Sprint(p.Count), "≤ 20 ms"})
	}
	return t
}

// promise is the bound that the project gives.
func promise(change string) string {
	switch {
	case strings.HasPrefix(change, "label to"):
		return "p99 ≤ 500 ms"
	case strings.HasPrefix(change, "policy to"):
		return "p99 ≤ 1 s"
	}
	return ""
}

// terminal prints the tables.
func (r *result) terminal(out io.Writer) {
	fmt.Fprintf(out, "%s\n%s\n%.1f MiB compared by hash, up and down; %d rounds in %v\n", machine(), &r.quiet, float64(r.verified)/(1<<20), r.conf.rounds, r.took.Round(time.Second))
	for _, t := range r.tables() {
		fmt.Fprintf(out, "\n%s\n", t.title)
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "  "+strings.Join(t.head, "\t"))
		for _, row := range t.rows {
			fmt.Fprintln(w, "  "+strings.Join(row, "\t"))
		}
		w.Flush() //nolint:errcheck // to a terminal
	}
}

// markdown writes the page of the documentation.
func (r *result) markdown(file string) error {
	var b strings.Builder
	b.WriteString(preface)
	fmt.Fprintf(&b, "\n## Measured %s\n\n%s. Other work on the machine: %s. Rounds: %d, after one that warms up. %.0f MiB were compared by hash, up and down, on every lane.\n",
		time.Now().UTC().Format("2 January 2006"), machine(), &r.quiet, r.conf.rounds, float64(r.verified)/(1<<20))
	for _, t := range r.tables() {
		fmt.Fprintf(&b, "\n### %s\n\n| %s |\n|%s\n", strings.ToUpper(t.title[:1])+t.title[1:], strings.Join(t.head, " | "), strings.Repeat("---|", len(t.head)))
		for _, row := range t.rows {
			fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
		}
	}
	fmt.Fprintf(&b, "\n%s", r.verdict())
	return os.WriteFile(file, []byte(b.String()), 0o644)
}

const preface = `# Performance

Written by ` + "`make bench UPDATE=1`" + `; do not edit.

Every lane is a pair of pods on two nodes of one local cluster, all up at once; rounds are interleaved and nobody is always
the first. *direct* has no proxy. *plain copy* has the plainest one that there is in the place of each ztunnel: a loop that
copies with a buffer of 256 KiB, without encryption, identity, policy or log. *ambit* and *istio* are captured by the same
rules of the same agent, under the same control plane; Istio's ztunnel is its release build with its own defaults.

CPU is what both proxies on the way used, in user and kernel mode, by the kernel's account of their threads. Ratios are
medians of the rounds' own ratios: they mean something, absolute figures depend on the machine and on who else uses it.
All lanes share the machine's processors with both ends of the traffic, so GB/s is no statement about what a link can carry.
`
