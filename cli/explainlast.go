package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/api/explain"
	"github.com/ambit-mesh/ambit/local/table"
)

// explainLast tells of the connections that failed lately, on all nodes.
func (l *look) explainLast(ctx context.Context, n int, output string) error {
	if n < 1 {
		return errors.New("--last: want a number above 0")
	}
	pods, err := l.ztunnels(ctx, "", "")
	if err != nil {
		return err
	}
	answers := askEach(pods, func(p *corev1.Pod) (some []explain.Failure, err error) {
		b, err := l.page(ctx, p, l.adminPort, "/last?"+url.Values{"n": {strconv.Itoa(n)}}.Encode())
		if err == nil {
			if err = json.Unmarshal(b, &some); err != nil {
				err = fmt.Errorf("answer of %s: %w", p.Name, err)
			}
		}
		return some, err
	})
	var all []explain.Failure
	for _, a := range answers {
		all = append(all, a.value...)
	}
	failed := failures(answers)
	slices.SortStableFunc(all, func(a, b explain.Failure) int { return a.Time.Compare(b.Time) })
	all = all[max(0, len(all)-n):]
	if output != "" {
		return errors.Join(encode(l.env.Out, output, append([]explain.Failure{}, all...)), failed)
	}
	if len(all) == 0 && failed == nil {
		fmt.Fprintln(l.env.Out, "No connection has failed since the ztunnels started.")
	}
	for _, f := range all {
		fmt.Fprint(l.env.Out, table.Plain(failureText(f)))
	}
	return failed
}

// failureText is a line, and one more for a policy's reason.
func failureText(f explain.Failure) string {
	end := func(name, addr, service string) string {
		switch {
		case name != "" && service != "":
			return fmt.Sprintf("%s (%s, %s)", name, addr, service)
		case name != "":
			return fmt.Sprintf("%s (%s)", name, addr)
		}
		return addr
	}
	text := fmt.Sprintf("%s  %s  %s -> %s  %s\n", f.Time.UTC().Format(time.RFC3339), f.Direction,
		end(f.Source, f.SourceAddr, ""), end(f.Dest, f.DestAddr, f.Service), f.Error)
	if f.Policy != "" || f.Why != "" {
		text += fmt.Sprintf("    policy %s: %s\n", cmp.Or(f.Policy, "none"), f.Why)
	}
	return text
}
