package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/cli/internal/jsonpath"
	"github.com/ambit-mesh/ambit/control/source/kinds"
)

func newWait(s *scope) *cobra.Command {
	var condition, selector string
	var timeout time.Duration
	var all bool
	c := &cobra.Command{
		Use: "wait KIND/NAME --for=condition=Ready", Short: "Wait until objects meet a condition", Args: cobra.MinimumNArgs(1),
		Example: "  ambit local wait pod -l app=productpage --for=condition=Ready\n  ambit local wait deploy/sleep --for=condition=Available\n  ambit local wait pod/x --for=delete",
		RunE: func(c *cobra.Command, args []string) error {
			given, err := targets(args)
			if err != nil {
				return err
			}
			ts, err := s.expand(c.Context(), given, selector, all)
			if err != nil {
				return err
			}
			if len(ts) == 0 {
				return fmt.Errorf("no matching resources found")
			}
			met, err := conditionOf(condition)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(c.Context(), timeout)
			defer cancel()
			for _, t := range ts {
				if condition != "delete" && condition != "create" { // what is not there now is not waited for
					if _, err := s.client().Get(ctx, t.kind, t.namespace, t.name); err != nil {
						return hinted(ctx, s.client(), err, t.kind, t.namespace, t.name)
					}
				}
				if err := s.client().Until(ctx, t.kind, t.namespace, t.name, met); err != nil {
					return err
				}
				how := "condition met"
				if condition == "delete" {
					how = "deleted"
				}
				fmt.Fprintf(s.env.Out, "%s %s\n", named(t.kind.Kind, t.kind.Group, t.name), how)
			}
			return nil
		},
	}
	c.Flags().StringVar(&condition, "for", "", "condition=NAME[=VALUE], jsonpath={PATH}[=VALUE], create or delete")
	c.Flags().StringVarP(&selector, "selector", "l", "", "objects with these labels")
	c.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "how long to wait")
	c.Flags().BoolVar(&all, "all", false, "every object of the kind")
	return c
}

// conditionOf reads --for.
func conditionOf(text string) (func(kinds.Object) (bool, string), error) {
	if text == "delete" {
		return func(o kinds.Object) (bool, string) { return o == nil, "it still exists" }, nil
	}
	if text == "create" {
		return func(o kinds.Object) (bool, string) { return o != nil, "there is no such object" }, nil
	}
	if spec, ok := strings.CutPrefix(text, "jsonpath="); ok {
		return pathCondition(spec)
	}
	spec, ok := strings.CutPrefix(text, "condition=")
	if !ok {
		return nil, usage("--for=%s: want condition=NAME[=VALUE], jsonpath={PATH}[=VALUE], create or delete", text)
	}
	name, want, ok := strings.Cut(spec, "=")
	if !ok {
		want = "True"
	}
	return func(o kinds.Object) (bool, string) {
		if o == nil {
			return false, "there is no such object"
		}
		for _, c := range conditionsOf(o) {
			if strings.EqualFold(c.name, name) {
				return strings.EqualFold(c.status, want), fmt.Sprintf("condition %s is %s: %s", c.name, c.status, c.message)
			}
		}
		return false, "it has no condition " + name
	}, nil
}

// pathCondition reads {PATH}=VALUE, or {PATH} for any value.
func pathCondition(spec string) (func(kinds.Object) (bool, string), error) {
	end := strings.LastIndexByte(spec, '}')
	path, want := spec[:end+1], strings.TrimPrefix(spec[end+1:], "=")
	any := end+1 == len(spec)
	if end < 0 {
		return nil, usage("--for=jsonpath=%s: write the path in braces, as in jsonpath={.status.phase}=Running", spec)
	}
	if _, err := jsonpath.Find(path, nil); err != nil {
		return nil, usage("--for=jsonpath=%s: %w", spec, err)
	}
	return func(o kinds.Object) (bool, string) {
		if o == nil {
			return false, "there is no such object"
		}
		v, err := plainValue(o)
		if err != nil {
			return false, err.Error()
		}
		values, err := jsonpath.Find(path, v)
		if err != nil || len(values) == 0 {
			return false, "it has no " + path
		}
		have := jsonpath.Text(values[0])
		return any || have == want, fmt.Sprintf("%s is %q", path, have)
	}, nil
}
