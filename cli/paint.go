package cli

import (
	"io"

	"github.com/fatih/color"
)

// paint colours words where the output is a terminal that does not ask to stay plain.
type paint struct{ good, bad, warn, faint, bold func(string) string }

func newPaint(out io.Writer) paint {
	on := colored(out)
	with := func(a ...color.Attribute) func(string) string {
		c := color.New(a...)
		if on {
			c.EnableColor()
		} else {
			c.DisableColor()
		}
		return func(s string) string { return c.Sprint(s) }
	}
	return paint{good: with(color.FgGreen), bad: with(color.FgRed), warn: with(color.FgYellow), faint: with(color.Faint), bold: with(color.Bold)}
}
