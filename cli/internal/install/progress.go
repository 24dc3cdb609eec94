package install

import (
	"fmt"
	"io"
)

// Printer tells of an installation in lines: on a terminal one line moves, elsewhere each change is a line.
type Printer struct {
	Out io.Writer
	// Terminal says that lines can be written over.
	Terminal bool
	// Good colours the mark of what is done.
	Good func(string) string

	line string // the one that moves
}

// Waiting says how far a component is.
func (p *Printer) Waiting(component string, ready, want int, on string) {
	line := fmt.Sprintf("- %s: %s", component, on)
	if want > 0 {
		line = fmt.Sprintf("- %s: %d/%d ready (%s)", component, ready, want, on)
	}
	if line == p.line {
		return
	}
	p.line = line
	if p.Terminal {
		fmt.Fprintf(p.Out, "\r\x1b[2K%s", line)
		return
	}
	fmt.Fprintln(p.Out, line)
}

func (p *Printer) clear() {
	if p.Terminal && p.line != "" {
		fmt.Fprint(p.Out, "\r\x1b[2K")
	}
	p.line = ""
}

// Done says that a component is there.
func (p *Printer) Done(s Step) {
	p.clear()
	fmt.Fprintf(p.Out, "%s %s installed %s\n", p.Good("✔"), s.Name, s.Icon)
}

// Note says something by the way.
func (p *Printer) Note(text string) {
	p.clear()
	fmt.Fprintln(p.Out, text)
}

// End clears the line that moves.
func (p *Printer) End() { p.clear() }
