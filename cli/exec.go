package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/local/client"
)

func newExec(s *scope) *cobra.Command {
	var container string
	var stdin, tty bool
	c := &cobra.Command{
		Use: "exec (POD | KIND/NAME) [-c CONTAINER] -- COMMAND [ARG...]", Short: "Run a program of this machine inside a pod",
		Example: "  ambit local exec deploy/sleep -- curl -s http://productpage:9080/\n  ambit local exec -it deploy/sleep -- sh",
		Args:    cobra.MinimumNArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			if at := c.ArgsLenAtDash(); at > 1 {
				return errors.New("name one pod before --")
			}
			pods, err := s.podsFor(c.Context(), args[:1], "")
			if err != nil {
				return err
			}
			in, out, diag, err := s.streams(stdin)
			if err != nil {
				return err
			}
			req := client.ExecRequest{Namespace: pods[0].Namespace, Pod: pods[0].Name, Container: container, Argv: args[1:], Env: terminalEnv(tty)}
			if tty && (!stdin || !client.IsTerminal(in)) {
				fmt.Fprintln(s.env.Err, "Unable to use a TTY - input is not a terminal or the right kind of file: add -i and type on a terminal, or leave -t out")
				tty = false
			}
			// Ctrl-C is the program's.
			ctx := context.WithoutCancel(c.Context())
			run := func() (int, error) { return s.client().Exec(ctx, req, in, out, diag) }
			if tty {
				run = func() (int, error) { return s.client().ExecTerminal(ctx, req, in, out) }
			}
			code, err := run()
			if errors.Is(err, client.ErrInterrupted) {
				return exitStatus(130)
			}
			if err != nil {
				return err
			}
			if code != 0 {
				fmt.Fprintf(s.env.Err, "command terminated with exit code %d\n", code)
				return exitStatus(code)
			}
			return nil
		},
	}
	c.Flags().StringVarP(&container, "container", "c", "", "container of the pod")
	c.Flags().BoolVarP(&stdin, "stdin", "i", false, "pass this command's input on")
	c.Flags().BoolVarP(&tty, "tty", "t", false, "give the program this terminal")
	c.Flags().SetInterspersed(true)
	return c
}

// streams are the files that the program gets: it writes to them itself.
func (s *scope) streams(stdin bool) (in, out, diag *os.File, err error) {
	out, ok := s.env.Out.(*os.File)
	if !ok {
		return nil, nil, nil, errors.New("exec needs a file as output")
	}
	if diag, ok = s.env.Err.(*os.File); !ok {
		diag = out
	}
	if stdin {
		if in, ok = s.env.In.(*os.File); ok {
			return in, out, diag, nil
		}
	}
	in, err = os.Open(os.DevNull)
	return in, out, diag, err
}

func terminalEnv(tty bool) []string {
	if term := os.Getenv("TERM"); tty && term != "" {
		return []string{"TERM=" + term}
	}
	return nil
}
