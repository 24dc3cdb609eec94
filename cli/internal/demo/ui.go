package demo

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fatih/color"

	"github.com/ambit-mesh/ambit/local/client"
	"github.com/ambit-mesh/ambit/local/table"
)

// ui shows progress: on a terminal a line that counts seconds while a step runs, elsewhere finished lines only.
type ui struct {
	mu    sync.Mutex // guards below and the output
	out   io.Writer
	live  bool
	spin  func() // stops the live line
	good  *color.Color
	bad   *color.Color
	faint *color.Color
	bold  *color.Color
}

func newUI(out io.Writer, colored bool) *ui {
	u := &ui{
		out: out, live: colored, good: color.New(color.FgGreen), bad: color.New(color.FgRed),
		faint: color.New(color.Faint), bold: color.New(color.Bold),
	}
	for _, c := range []*color.Color{u.good, u.bad, u.faint, u.bold} {
		if colored {
			c.EnableColor()
		} else {
			c.DisableColor()
		}
	}
	return u
}

func (u *ui) begin(name string) {
	u.mu.Lock()
	fmt.Fprintf(u.out, "\n%s %s\n", u.bold.Sprint("▶"), u.bold.Sprint(name))
	u.mu.Unlock()
}

func (u *ui) end(name string, err error, took time.Duration) {
	u.wait("")
	if err != nil {
		u.line("%s %s: %v", u.bad.Sprint("✘"), name, err)
		return
	}
	u.line("%s %s", u.good.Sprint("✔"), u.faint.Sprintf("%.1fs", took.Seconds()))
}

// line prints a finished line, above the live one.
func (u *ui) line(format string, args ...any) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.live {
		fmt.Fprint(u.out, "\r\033[K")
	}
	fmt.Fprintf(u.out, format+"\n", args...)
}

// command shows what a person would type for what happens now.
func (u *ui) command(text string) { u.line("  %s", u.faint.Sprint("$ "+text)) }

// proof shows text that was really read.
func (u *ui) proof(text string) {
	for line := range strings.Lines(strings.TrimRight(text, "\n")) {
		u.line("    %s", strings.TrimRight(line, "\n"))
	}
}

// done shows that a part of a step holds.
func (u *ui) done(format string, args ...any) {
	u.line("  %s %s", u.good.Sprint("✔"), fmt.Sprintf(format, args...))
}

// wait shows a live line with a counter until the next call; "" shows none. Without a terminal it prints nothing.
func (u *ui) wait(what string) {
	u.mu.Lock()
	stop := u.spin
	u.spin = nil
	u.mu.Unlock()
	if stop != nil {
		stop()
	}
	if what == "" || !u.live {
		return
	}
	quit, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		start := time.Now()
		t := time.NewTicker(120 * time.Millisecond)
		defer t.Stop()
		frames := []rune("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")
		for i := 0; ; i++ {
			u.mu.Lock()
			fmt.Fprintf(u.out, "\r\033[K  %c %s %.0fs", frames[i%len(frames)], what, time.Since(start).Seconds())
			u.mu.Unlock()
			select {
			case <-quit:
				u.mu.Lock()
				fmt.Fprint(u.out, "\r\033[K")
				u.mu.Unlock()
				return
			case <-t.C:
			}
		}
	}()
	u.mu.Lock()
	u.spin = func() { close(quit); <-gone }
	u.mu.Unlock()
}

// Summary ends the demo: a table of every step, and of the memory of every process.
func (w *Walk) Summary() error {
	rows := [][]string{{"STEP", "RESULT", "TIME"}}
	for _, r := range w.results {
		result := w.ui.good.Sprint("held")
		if r.Err != nil {
			result = w.ui.bad.Sprint("failed")
		}
		rows = append(rows, []string{r.Name, result, fmt.Sprintf("%.1fs", r.Took.Seconds())})
	}
	fmt.Fprintln(w.Out)
	if err := table.AlignColored(w.Out, rows); err != nil {
		return err
	}
	if len(w.memory) == 0 {
		return nil
	}
	slices.SortFunc(w.memory, func(a, b client.Process) int { return strings.Compare(a.Pod+a.Container, b.Pod+b.Container) })
	rows = [][]string{{"POD", "CONTAINER", "RESIDENT"}}
	for _, p := range w.memory {
		pod := p.Pod
		if pod == "" {
			pod = "(the cluster itself)"
		}
		rows = append(rows, []string{pod, p.Container, fmt.Sprintf("%.1f MiB", float64(p.RSS)/(1<<20))})
	}
	fmt.Fprintln(w.Out)
	if err := table.Align(w.Out, rows); err != nil {
		return err
	}
	if total, ok := w.held(); ok {
		w.ui.line("\n%s Every step held, in %.1fs.", w.ui.good.Sprint("✔"), total.Seconds())
	}
	return nil
}

// held tells whether every step did, and how long they took together.
func (w *Walk) held() (total time.Duration, ok bool) {
	for _, r := range w.results {
		if r.Err != nil {
			return 0, false
		}
		total += r.Took
	}
	return total, len(w.results) > 0
}
