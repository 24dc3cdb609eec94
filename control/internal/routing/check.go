package routing

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/ambit-mesh/ambit/api/l7"
)

// maxRegex is how long an expression may be; proxies refuse longer ones.
const maxRegex = 2048

// checkRule tells what of a rule a proxy would refuse. A refusal would take with it the rules of others for the same host:
// such a rule is left out here, and its author is told.
func checkRule(r *l7.Rule) error {
	for _, m := range r.GetMatches() {
		all := []*l7.StringMatch{m.GetPath(), m.GetScheme(), m.GetMethod(), m.GetAuthority()}
		for _, keys := range [][]*l7.KeyMatch{m.GetHeaders(), m.GetWithoutHeaders(), m.GetQuery()} {
			for _, k := range keys {
				all = append(all, k.GetValue())
			}
		}
		for _, s := range all {
			if err := checkRegex(s.GetRegex()); err != nil {
				return err
			}
		}
	}
	for _, o := range r.GetCors().GetOrigins() {
		if err := checkRegex(o.GetRegex()); err != nil {
			return err
		}
	}
	if err := checkRegex(r.GetRewrite().GetRegex().GetMatch()); err != nil {
		return err
	}
	if d := r.GetDirectResponse(); d != nil && (d.GetStatus() < 200 || d.GetStatus() > 599) {
		return fmt.Errorf("status %d cannot end a request", d.GetStatus())
	}
	if d := r.GetRedirect(); d != nil && (d.GetCode() < 300 || d.GetCode() > 399) {
		return fmt.Errorf("status %d is no redirect", d.GetCode())
	}
	if s := r.GetFault().GetAbortStatus(); s != 0 && (s < 200 || s > 599) {
		return fmt.Errorf("status %d cannot end a request", s)
	}
	return nil
}

func checkRegex(s string) error {
	if s == "" {
		return nil
	}
	if len(s) > maxRegex {
		return fmt.Errorf("an expression has %d bytes, at most %d are allowed", len(s), maxRegex)
	}
	if _, err := regexp.Compile(s); err != nil {
		return fmt.Errorf("an expression cannot be read: %w", err)
	}
	return nil
}

// goodHost reports whether proxies can match a host: a name, "*.suffix" or "*".
func goodHost(h string) bool {
	return h == "*" || h != "" && !strings.Contains(strings.TrimPrefix(h, "*."), "*")
}
