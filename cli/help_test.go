package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestEveryCommandShowsHow: those who ask for help see an example that this very command would take.
func TestEveryCommandShowsHow(t *testing.T) {
	var out bytes.Buffer
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			walk(sub)
		}
		if c.HasSubCommands() || !c.Runnable() || c.Name() == "help" || c.HasParent() && c.Parent().Name() == "completion" {
			return
		}
		switch {
		case c.Short == "" || strings.HasSuffix(c.Short, "."):
			t.Errorf("%s: %q says not what it does, in one line without a full stop", c.CommandPath(), c.Short)
		case !strings.Contains(c.Example, c.Root().Name()) && !bare(c):
			t.Errorf("%s has no example", c.CommandPath())
		}
		c.SetOut(&out)
		if err := c.Help(); err != nil {
			t.Errorf("%s: %v", c.CommandPath(), err)
		}
	}
	walk(newRoot(Env{In: strings.NewReader(""), Out: &out, Err: &out}))
}

// bare tells whether a command is written without any word after it.
func bare(c *cobra.Command) bool {
	return c.Args != nil && c.Args(c, []string{"x"}) != nil && c.Args(c, nil) == nil
}
