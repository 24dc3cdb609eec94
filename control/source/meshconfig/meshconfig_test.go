package meshconfig

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       Config
		unused     []string
		err        string
	}{
		{name: "nothing"},
		{name: "null", text: "null\n"},
		{name: "what counts", text: "trustDomain: a.example\nrootNamespace: root\n", want: Config{"a.example", "root"}},
		{name: "what does not", text: "trustDomain: td\naccessLogFile: /dev/stdout\ndefaultConfig: {discoveryAddress: x}\n", want: Config{TrustDomain: "td"}, unused: []string{"accessLogFile", "defaultConfig"}},
		{name: "a trust domain that is a list", text: "a: 1\ntrustDomain: [x]\n", err: "line 2: trustDomain: want text"},
		{name: "a trust domain that is a path", text: "trustDomain: a/b\n", err: "is not a name"},
		{name: "twice", text: "trustDomain: a\ntrustDomain: b\n", err: "twice"},
		{name: "a list", text: "- a\n", err: "not a map"},
		{name: "no YAML", text: "a: [\n", err: "not YAML"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, unused, err := Parse([]byte(c.text))
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Fatalf("error %v, want %q", err, c.err)
			}
			if got != c.want || !slices.Equal(unused, c.unused) {
				t.Errorf("%+v, unused %v", got, unused)
			}
		})
	}
}

// A file that breaks changes nothing; one that changes what is in force says that it waits.
func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mesh")
	put := func(s string) {
		if err := os.WriteFile(path, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	log := slog.New(slog.DiscardHandler)
	if f, err := Open(path, log); err != nil || f.Config() != (Config{}) {
		t.Errorf("without a file: %v", err)
	}
	put("trustDomain: [\n")
	if _, err := Open(path, log); err == nil {
		t.Error("a broken file is no error at the start")
	}
	put("trustDomain: a\nenableTracing: true\n")
	f, err := Open(path, log)
	if err != nil {
		t.Fatal(err)
	}
	if r := f.Report(); f.Config().TrustDomain != "a" || !slices.Equal(r.Unused, []string{"enableTracing"}) || r.Refused != "" {
		t.Errorf("report %+v", r)
	}
	put("trustDomain: [\n")
	f.look()
	if r := f.Report(); r.Refused == "" || r.InForce.TrustDomain != "a" || len(r.Unused) != 1 {
		t.Errorf("report of a broken file %+v", r)
	}
	put("trustDomain: b\n")
	f.look()
	if r := f.Report(); r.Refused != "" || r.InForce.TrustDomain != "a" || !slices.Equal(r.Waiting, []string{"trustDomain"}) || len(r.Unused) != 0 {
		t.Errorf("report of a changed file %+v", r)
	}
	put("trustDomain: a\nenableTracing: true\n")
	f.look()
	if r := f.Report(); len(r.Waiting) != 0 || len(r.Unused) != 1 {
		t.Errorf("report of the old file %+v", r)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("trustDomain: a\nrootNamespace: b\nc: {d: [e]}\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, _, err := Parse(data)
		if err == nil && strings.ContainsAny(c.TrustDomain+c.RootNamespace, "/ \n") {
			t.Errorf("accepted %+v", c)
		}
	})
}
