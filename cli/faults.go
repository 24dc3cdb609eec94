package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newPlug(s *scope, in bool) *cobra.Command {
	verb, short, done := "unplug", "Pull a node's cable out: nothing reaches it or leaves it", "out"
	if in {
		verb, short, done = "plug", "Put a node's cable in again", "in"
	}
	return &cobra.Command{
		Use: verb + " NODE", Short: short, Args: cobra.ExactArgs(1),
		Example: "  ambit local " + verb + " node-2",
		RunE: func(c *cobra.Command, args []string) error {
			if err := s.client().Plug(c.Context(), args[0], in); err != nil {
				return err
			}
			fmt.Fprintf(s.env.Out, "node/%s: the cable is %s\n", args[0], done)
			return nil
		},
	}
}

func newKill(s *scope) *cobra.Command {
	var container, signal string
	c := &cobra.Command{
		Use: "kill (POD | KIND/NAME)", Short: "Send a signal to a pod's program, as if it crashed or hung", Args: cobra.ExactArgs(1),
		Example: "  ambit local kill deploy/productpage-v1\n  ambit local kill -n istio-system ds/ztunnel --signal STOP",
		RunE: func(c *cobra.Command, args []string) error {
			pods, err := s.podsFor(c.Context(), args, "")
			if err != nil {
				return err
			}
			p := pods[0]
			if err := s.client().Signal(c.Context(), p.Namespace, p.Name, container, signal); err != nil {
				return err
			}
			fmt.Fprintf(s.env.Out, "pod/%s: SIG%s sent\n", p.Name, signal)
			return nil
		},
	}
	c.Flags().StringVarP(&container, "container", "c", "", "container of the pod; the first")
	c.Flags().StringVarP(&signal, "signal", "s", "KILL", "name of the signal: KILL, TERM, STOP, CONT, ...")
	return c
}
