package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/local/table"
)

// page is numbered steps, each a word and what there is to say, in further lines below it.
type page struct {
	title string
	lines []pageLine
	steps int
	// failed says that a line tells of what could not be found out.
	failed bool
}

// pageLine is one line; step is 0 for a further one.
type pageLine struct {
	step       int
	what, text string
	tone       tone
}

// tone is how a line is meant, shown by colour where there is one.
type tone int

const (
	plain tone = iota
	fine
	bad
	wary
	aside
)

func (p *page) say(what string, t tone, format string, args ...any) {
	p.steps++
	p.lines = append(p.lines, pageLine{p.steps, what, table.Plain(fmt.Sprintf(format, args...)), t})
}

// fail says what could not be found out.
func (p *page) fail(what, format string, args ...any) {
	p.failed = true
	p.say(what, bad, format, args...)
}

func (p *page) more(t tone, format string, args ...any) {
	p.lines = append(p.lines, pageLine{text: table.Plain(fmt.Sprintf(format, args...)), tone: t})
}

// margin is where the text of every line begins.
const margin = 16

// write shows the page in so many columns, 0 for as many as it takes, in colour where the paint has any.
func (p *page) write(w io.Writer, width int, c paint) error {
	var b strings.Builder
	b.WriteString(c.bold(table.Plain(p.title)) + "\n")
	tones := map[tone]func(string) string{plain: func(s string) string { return s }, fine: c.good, bad: c.bad, wary: c.warn, aside: c.faint}
	for _, l := range p.lines {
		lead := strings.Repeat(" ", margin)
		if l.step > 0 {
			lead = fmt.Sprintf("%d. ", l.step) + c.bold(l.what) + strings.Repeat(" ", max(1, margin-len(fmt.Sprintf("%d. ", l.step))-len(l.what)))
		}
		for i, part := range wrap(l.text, width-margin) {
			if i > 0 {
				lead = strings.Repeat(" ", margin+2)
			}
			b.WriteString(lead + tones[l.tone](part) + "\n")
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// wrap breaks a text between words into parts of at most so many characters, those after the first two narrower for their
// indent. A word that is longer stays whole: addresses and names are to be copied. A width too small for sense breaks nothing.
func wrap(text string, width int) []string {
	if width < 30 || utf8.RuneCountInString(text) <= width {
		return []string{text}
	}
	var parts []string
	line := ""
	for i, word := range strings.Split(text, " ") {
		room := width
		if len(parts) > 0 {
			room -= 2
		}
		if i == 0 {
			line = word
			continue
		}
		if utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > room {
			parts = append(parts, line)
			line = word
			continue
		}
		line += " " + word
	}
	return append(parts, line)
}

// widthOf is how many columns a terminal has; 0 for what is none.
func widthOf(out io.Writer) int {
	f, ok := out.(*os.File)
	if !ok {
		return 0
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(size.Col)
}
