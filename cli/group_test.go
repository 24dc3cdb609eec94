package cli

import (
	"bytes"
	"strings"
	"testing"
)

func TestUnknownVerbsFail(t *testing.T) {
	for line, want := range map[string]string{
		"local gte pods":              `did you mean get?`,
		"local run x --image=y":       `unknown command "run" for "ambit local"`,
		"local rollout undo deploy/x": `unknown command "undo" for "ambit local rollout"`,
		"bogus":                       `unknown command "bogus" for "ambit"`,
		"local create ingress x":      "write it as YAML and use -f",
		"local get nothing":           `resource type "nothing"`,
		"local patch svc x -p [":      "the patch",
	} {
		var out, diag bytes.Buffer
		code := Run(t.Context(), Env{In: strings.NewReader(""), Out: &out, Err: &diag}, strings.Fields(line))
		if code == 0 || !strings.Contains(diag.String(), want) {
			t.Errorf("%s: exit code %d, %q, want %q", line, code, diag.String(), want)
		}
	}
}
