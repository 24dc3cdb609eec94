package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// ambit runs a command line and gives its exit status and what it wrote.
func ambit(t *testing.T, in string, args ...string) (status int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	status = Run(t.Context(), Env{In: strings.NewReader(in), Out: &o, Err: &e, Version: "test"}, args)
	return status, o.String(), e.String()
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const good = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n"

func TestValidateSaysWhereAndHow(t *testing.T) {
	bad := write(t, "bad.yaml", good+"---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndatta: {a: b}\n")
	for _, c := range []struct {
		name, in  string
		args      []string
		status    int
		out, errs string
	}{
		{"good", good, []string{"-f", "-"}, 0, "1 objects are valid", ""},
		{"field", "", []string{"-f", bad}, 1, "", bad + `:8: unknown field "datta"; did you mean "data"?`},
		{"argument", "", []string{bad}, 1, "", bad + ":8: "},
		{"json", "", []string{bad, "-o", "json"}, 1, `"line": 8`, ""},
		{"kind", "apiVersion: v1\nkind: ConfigMop\nmetadata: {name: c}\n", []string{"-f", "-"}, 1, "", "did you mean ConfigMap?"},
		{"foreign kind", good + "---\napiVersion: example.com/v1\nkind: Widget\nmetadata: {name: c}\n", []string{"-f", "-", "--ignore-unknown"}, 0, "1 objects are valid", ""},
		{"YAML", "a:\n\t- b\n", []string{"-f", "-"}, 1, "", "<stdin>:2: is not YAML"},
		{"nothing named", "", nil, 1, "", "name what to read with -f FILE"},
		{"no such file", "", []string{"-f", "/nonexistent.yaml"}, 1, "", `the path "/nonexistent.yaml" does not exist`},
		{"no such output", good, []string{"-f", "-", "-o", "xml"}, 64, "", "want text, json or yaml"},
		{"no such option", good, []string{"--all"}, 64, "", "--help lists the options"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, out, errs := ambit(t, c.in, append([]string{"validate"}, c.args...)...)
			if status != c.status || !strings.Contains(out, c.out) || !strings.Contains(errs, c.errs) {
				t.Errorf("status %d, out %q, errors %q; want %d, %q, %q", status, out, errs, c.status, c.out, c.errs)
			}
		})
	}
}

// TestUI07HostileFilesAreRefused: within 2 s and 64 MiB.
func TestUI07HostileFilesAreRefused(t *testing.T) {
	bomb := "a0: &a0 [x,x,x,x,x,x,x,x,x]\n"
	for i := 1; i < 12; i++ {
		bomb += fmt.Sprintf("a%d: &a%d [*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d]\n", i, i, i-1, i-1, i-1, i-1, i-1, i-1, i-1, i-1, i-1)
	}
	for _, c := range []struct{ name, in, file, want string }{
		{"alias bomb", bomb, "-", "<stdin>:"},
		{"depth", strings.Repeat("[", 100_000), "-", "<stdin>:"},
		{"size", strings.Repeat("#", 17<<20), "-", "more than 16 MiB"},
		{"http", "", "http://127.0.0.1:1/x.yaml", "fetches nothing from the network"},
		{"https", "", "https://example.com/x.yaml", "fetches nothing from the network"},
		{"file URL", "", "file:///etc/passwd", "fetches nothing from the network"},
		{"archive", "PK\x03\x04" + strings.Repeat("\x00", 100), "-", "<stdin>:"},
		{"gzip", "\x1f\x8b\x08\x00" + strings.Repeat("\x01", 100), "-", "<stdin>:"},
	} {
		for _, command := range [][]string{{"validate", "-f", c.file}, {"analyze", "--use-kube=false", c.file}} {
			t.Run("UI-07 "+c.name+" "+command[0], func(t *testing.T) {
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				start := time.Now()
				status, out, errs := ambit(t, c.in, command...)
				if took := time.Since(start); took > 2*time.Second {
					t.Errorf("took %v", took)
				}
				runtime.ReadMemStats(&after)
				if grown := int64(after.HeapSys) - int64(before.HeapSys) - int64(len(c.in)); grown > 64<<20 { // the input is this test's own
					t.Errorf("the heap grew by %d MiB", grown>>20)
				}
				if status == 0 || !strings.Contains(out+errs, c.want) {
					t.Errorf("status %d, %.300q %.300q, want %q", status, out, errs, c.want)
				}
			})
		}
	}
}

func TestAnalyzeFilesAlone(t *testing.T) {
	policy := write(t, "p.yaml", `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: a}
spec:
  rules:
    - from: [{source: {principals: [spiffe://cluster.local/ns/a/sa/b]}}]
`)
	broken := write(t, "b.yaml", "apiVersion: v1\nkind: Servce\nmetadata: {name: x}\n")
	for _, c := range []struct {
		name   string
		args   []string
		status int
		want   string
	}{
		{"a warning is no failure", []string{policy}, 0, "Warning [AMB0003] (AuthorizationPolicy p.a " + policy + ":6)"},
		{"unless it is said to be", []string{policy, "--failure-threshold", "warning"}, 79, "AMB0003"},
		{"below the threshold nothing is shown", []string{policy, "--output-threshold", "Error"}, 0, "No validation issues"},
		{"suppressed", []string{policy, "-S", "AMB0003=AuthorizationPolicy *.a", "--failure-threshold", "Info"}, 0, "No validation issues"},
		{"suppressed for another", []string{policy, "-S", "AMB0003=AuthorizationPolicy *.b"}, 0, "AMB0003"},
		{"an unknown code", []string{policy, "-S", "IST9999=x"}, 0, "no finding has the code IST9999"},
		{"a broken file is a finding, and the others are looked at", []string{broken, policy}, 79, "Error [IST0106] (" + broken + ":2)"},
		{"json", []string{policy, "-o", "json"}, 0, `"reference": "` + policy + `:6"`},
		{"nothing named", nil, 1, "name files to analyze"},
		{"no such level", []string{policy, "--failure-threshold", "fatal"}, 64, "want Info, Warning or Error"},
		{"no such output", []string{policy, "-o", "xml"}, 64, "want log, json or yaml"},
		{"nonsense to suppress", []string{policy, "-S", "x"}, 64, "write CODE=RESOURCE"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, out, errs := ambit(t, "", append([]string{"analyze", "--use-kube=false"}, c.args...)...)
			if status != c.status || !strings.Contains(out+errs, c.want) {
				t.Errorf("status %d\n%s%swant %d, %q", status, out, errs, c.status, c.want)
			}
		})
	}
}

func TestUnknownCommandsAreNamed(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"anlyze"}, "did you mean analyze?"},
		{[]string{"zc", "workloadz"}, "did you mean workload?"},
		{[]string{"local", "gte"}, "did you mean get?"},
		{[]string{"analyze", "--nope"}, "ambit analyze --help lists the options"},
	} {
		if status, _, errs := ambit(t, "", c.args...); status != 64 || !strings.Contains(errs, c.want) {
			t.Errorf("%v: status %d, %q, want 64 and %q", c.args, status, errs, c.want)
		}
	}
}
