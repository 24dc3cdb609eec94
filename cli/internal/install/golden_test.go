package install

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/manifests"
)

var update = flag.Bool("update", false, "write testdata anew")

// TestProfiles: what each profile installs, to be read when it changes. The profile ambient is there as it is; of the others only
// where they differ from it.
func TestProfiles(t *testing.T) {
	text := func(o *Object) string {
		var b bytes.Buffer
		if err := Write(&b, []*Object{o}); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	first := map[string]string{}
	for _, o := range plan(t, "profile=ambient", "hub=example.com/mesh").Objects() {
		first[describe(o)] = text(o)
	}
	for _, profile := range manifests.Profiles() {
		t.Run(profile, func(t *testing.T) {
			var b strings.Builder
			for _, step := range plan(t, "profile="+profile, "hub=example.com/mesh").Steps {
				b.WriteString("# " + step.Name + "\n")
				for _, o := range step.Objects {
					name := describe(o)
					switch {
					case o.GetKind() == "CustomResourceDefinition", profile != "ambient" && text(o) == first[name]:
						b.WriteString("#   " + name + "\n")
					default:
						b.WriteString(text(o))
					}
				}
			}
			path := filepath.Join("testdata", profile+".yaml")
			if *update {
				if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), b.String()); d != "" {
				t.Errorf("go test ./cli/internal/install -run TestProfiles -update, and read the difference (-was +is):\n%s", d)
			}
		})
	}
}
