// Package cli is the ambit command: what a person types, and what they read.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/local/client"
	"github.com/ambit-mesh/ambit/local/table"
)

// Env is the world outside the command: streams, and what the build says of itself.
type Env struct {
	In       io.Reader
	Out, Err io.Writer
	Version  string
}

// Run executes a command line and returns the exit status.
func Run(ctx context.Context, env Env, args []string) int {
	root := newRoot(env)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var exit exitStatus
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return int(exit)
	case interrupted(ctx, err):
		return interruptedBy(ctx)
	}
	for _, err := range each(err) {
		var refused *client.StatusError
		if errors.As(err, &refused) && refused.Reason != "" {
			fmt.Fprintf(env.Err, "Error from server (%s): %s\n", refused.Reason, table.Plain(err.Error()))
			continue
		}
		fmt.Fprintf(env.Err, "Error: %s\n", table.Plain(err.Error()))
	}
	if errors.As(err, new(usageError)) {
		return exitUsage
	}
	return 1
}

// interrupted tells whether an error says nothing but that the person ended the command.
func interrupted(ctx context.Context, err error) bool {
	if ctx.Err() == nil {
		return false
	}
	return !slices.ContainsFunc(each(err), func(err error) bool {
		return !errors.Is(err, context.Canceled) && !errors.Is(err, context.Cause(ctx))
	})
}

// interruptedBy is the exit status that shells give a program that a signal ended: 130 for Ctrl-C, 143 for SIGTERM.
func interruptedBy(ctx context.Context) int {
	if cause := context.Cause(ctx); cause != nil && strings.HasPrefix(cause.Error(), syscall.SIGTERM.String()) {
		return 128 + int(syscall.SIGTERM)
	}
	return 128 + int(syscall.SIGINT)
}

// each gives the errors that were joined, as they are told one a line.
func each(err error) []error {
	if several, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, e := range several.Unwrap() {
			all = append(all, each(e)...)
		}
		return all
	}
	return []error{err}
}

// exitStatus ends the command with a status and no further words.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func newRoot(env Env) *cobra.Command {
	root := group(&cobra.Command{
		Use:   "ambit",
		Short: "A sidecar-less service mesh",
		Long: "ambit is a sidecar-less (ambient) service mesh: applications join by a label, with no sidecar and no restart.\n\n" +
			"Start with:  ambit demo        a whole mesh on this machine, shown step by step\n" +
			"             ambit local up    the same mesh, left running to work with",
		SilenceErrors: true, SilenceUsage: true,
	})
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usage("%w (%s --help lists the options)", err, c.CommandPath())
	})
	root.SetIn(env.In)
	root.SetOut(env.Out)
	root.SetErr(env.Err)
	root.AddCommand(newVersion(env), newValidate(env), newLocal(env), newDemo(env), newZtunnelConfig(env), newProxyStatus(env), newExplain(env), newAnalyze(env), newProxyConfig(env), newExperimental(env), newBugReport(env),
		newInstall(env, "install", "Install the mesh on a Kubernetes cluster"), newInstall(env, "upgrade", "Bring the mesh on a Kubernetes cluster to this version"), newUninstall(env), newManifest(env), newProfile(env))
	sayHow(root)
	return root
}

// sayHow makes every command that is given too few or too many words say how it is written.
func sayHow(c *cobra.Command) {
	if check := c.Args; check != nil && c.Runnable() && !c.HasSubCommands() {
		c.Args = func(c *cobra.Command, args []string) error {
			err := check(c, args)
			if err == nil {
				return nil
			}
			how := "write " + strings.TrimSuffix(c.UseLine(), " [flags]")
			if example, _, _ := strings.Cut(strings.TrimSpace(c.Example), "\n"); example != "" {
				how += ", such as: " + example
			}
			return usage("%w; %s", err, how)
		}
	}
	for _, sub := range c.Commands() {
		sayHow(sub)
	}
}

// Bounds of what is read: hand-written objects are small, what machines dump is not.
const (
	maxObjects = 16 << 20
	maxDump    = 256 << 20
)

// readAll reads a whole stream within a bound.
func readAll(r io.Reader, what string, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("read %s: more than %d MiB", what, limit>>20)
	}
	return b, nil
}

func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f, path, limit)
}
