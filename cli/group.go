package cli

import (
	"strings"

	"github.com/spf13/cobra"
)

// group makes a command that only holds others refuse words that it does not know, where cobra would print its help
// and call it a success.
func group(c *cobra.Command) *cobra.Command {
	c.FParseErrWhitelist.UnknownFlags = true // they are the unknown word's
	c.SuggestionsMinimumDistance = 2
	c.Args = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		hint := ""
		if like := c.SuggestionsFor(args[0]); len(like) > 0 {
			hint = "; did you mean " + strings.Join(like, " or ") + "?"
		}
		return usage("unknown command %q for %q%s (%s --help lists them)", args[0], c.CommandPath(), hint, c.CommandPath())
	}
	c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	return c
}
