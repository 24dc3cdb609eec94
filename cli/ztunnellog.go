package cli

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
)

// logLevels are the words for levels, and what ztunnel calls those that only istioctl knows.
func logLevels() map[string]string {
	return map[string]string{
		"trace": "trace", "debug": "debug", "info": "info", "warn": "warn", "warning": "warn", "error": "error", "critical": "error", "off": "off",
	}
}

// logFilter checks what --level says, LEVEL or PART:LEVEL,…, and gives it in ztunnel's own form.
func logFilter(text string) (string, error) {
	var out []string
	for _, item := range strings.Split(text, ",") {
		part, level := "", item
		if i := strings.LastIndexAny(item, ":="); i >= 0 {
			part, level = strings.TrimSuffix(item[:i], ":")+"=", item[i+1:]
		}
		word, ok := logLevels()[strings.ToLower(strings.TrimSpace(level))]
		if !ok || part == "=" {
			return "", fmt.Errorf("--level: %q is no level: want trace, debug, info, warn, error or off, alone or as access=debug", item)
		}
		out = append(out, part+word)
	}
	return strings.Join(out, ","), nil
}

func newZtunnelLog(l *look, f *zcFlags) *cobra.Command {
	return newLogFilter(l, &cobra.Command{
		Use: "log [POD[.NAMESPACE]]", Aliases: []string{"o"}, Short: "Show or change what the ztunnels log", Args: cobra.MaximumNArgs(1),
		Long:    "Show or change the log filter of every ztunnel, or of that of --node or of a pod's name, until it restarts.",
		Example: "  ambit zc log --level debug\n  ambit zc log --level info,access=debug --node node-2\n  ambit zc log --reset",
	}, func(ctx context.Context, args []string) ([]*corev1.Pod, error) { return l.ztunnelsFor(ctx, f, args) })
}

// newLogFilter is a command that shows or changes the log filter of the pods that its arguments mean.
func newLogFilter(l *look, c *cobra.Command, pods func(context.Context, []string) ([]*corev1.Pod, error)) *cobra.Command {
	var level string
	var reset bool
	c.RunE = func(c *cobra.Command, args []string) error {
		if reset && level != "" {
			return usage("give --level or --reset, not both")
		}
		q := url.Values{}
		if level != "" {
			filter, err := logFilter(level)
			if err != nil {
				return err
			}
			q.Set("level", filter)
		}
		if reset {
			q.Set("reset", "")
		}
		found, err := pods(c.Context(), args)
		if err != nil {
			return err
		}
		answers := askEach(found, func(p *corev1.Pod) ([]byte, error) {
			return l.call(c.Context(), http.MethodPost, p, l.adminPort, "/logging?"+q.Encode())
		})
		for _, a := range answers {
			if a.err == nil {
				fmt.Fprintf(l.env.Out, "%s.%s:\n%s\n", a.pod.Name, a.pod.Namespace, strings.TrimSpace(string(a.value)))
			}
		}
		if err := failures(answers); err != nil {
			return fmt.Errorf("log filter: %w", err)
		}
		return nil
	}
	c.Flags().StringVar(&level, "level", "", "a level (trace, debug, info, warn, error, off) or a filter such as info,access=debug")
	c.Flags().BoolVarP(&reset, "reset", "r", false, "go back to the filter that it started with")
	completeFlag(c, "level", words(slices.Sorted(maps.Keys(logLevels()))...))
	return c
}
