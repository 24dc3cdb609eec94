// Package house holds the rules of the house as tests.
package house

import (
	"bufio"
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/ambit-mesh/ambit"

var update = flag.Bool("update", false, "rewrite cmd/*/deps.txt")

// TestFolders keeps the top of the tree to the nouns of the mesh (DESIGN: the tree).
func TestFolders(t *testing.T) {
	known := strings.Fields(`.ci .git .github admin api authz bin cli cmd collection control dashboard dist docs gateway hbone identity
		internal lifecycle linux local manifests mesh node samples telemetry test xds ztunnel .cache`)
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() && !slices.Contains(known, e.Name()) {
			t.Errorf("folder %s is not a room or a floor of the house", e.Name())
		}
	}
}

// TestFileLength: past 400 lines there is a second idea in the file.
func TestFileLength(t *testing.T) {
	const most = 400
	eachGoFile(t, func(path string) {
		if strings.HasSuffix(path, ".pb.go") || strings.HasSuffix(path, "_test.go") {
			return
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		n := 0
		for s := bufio.NewScanner(f); s.Scan(); {
			n++
		}
		if n > most {
			t.Errorf("%s has %d lines, at most %d: look for the second idea", path, n, most)
		}
	})
}

// floors says which floor a package stands on, by the longest prefix of its path.
var floors = map[string]int{
	"api": 0, "mesh": 0,
	"identity": 1, "authz": 1, "collection": 1, "xds/delta": 1,
	"hbone": 2, "xds": 2, "identity/certs": 2, "telemetry": 2, "lifecycle": 2, "admin": 2, "linux": 2,
	"control": 3, "ztunnel": 3, "gateway": 3, "node": 3, "manifests": 3, "samples": 3,
	"local": 4, "cli": 4, "dashboard": 4,
	"cmd": 5, "test": 5, "samples/apps": 5,
	"internal": -1, // tests' own tools
}

func floorOf(pkg string) (name string, floor int) {
	for p := pkg; p != "."; p = filepath.Dir(p) {
		if f, ok := floors[p]; ok {
			return p, f
		}
	}
	return "", -1
}

// TestFloors: a package imports from its own floor's machinery or below, and a room never another room.
func TestFloors(t *testing.T) {
	rooms := []string{"control", "ztunnel", "gateway", "node"}
	for pkg, imports := range imports(t) {
		from, floor := floorOf(pkg)
		if floor < 0 {
			continue
		}
		for _, imp := range imports {
			to, below := floorOf(imp)
			switch {
			case below < 0:
				t.Errorf("%s imports %s, which is for tests", pkg, imp)
			case below > floor:
				t.Errorf("%s (floor %d) imports %s (floor %d)", pkg, floor, imp, below)
			case from != to && slices.Contains(rooms, from) && slices.Contains(rooms, to):
				t.Errorf("room %s imports room %s (%s)", from, to, imp)
			}
		}
	}
}

// imports lists, for each package of the module, which others of the module its code (not its tests) imports.
func imports(t *testing.T) map[string][]string {
	t.Helper()
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	all := map[string][]string{}
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		pkg, ok := strings.CutPrefix(words[0], module+"/")
		if !ok {
			continue
		}
		all[pkg] = nil
		for _, w := range words[1:] {
			if own, ok := strings.CutPrefix(w, module+"/"); ok {
				all[pkg] = append(all[pkg], own)
			}
		}
	}
	return all
}

// forbidden are modules that a binary must not link: memory and start-up time are features.
var forbidden = map[string][]string{
	"ztunnel":    {"k8s.io/", "sigs.k8s.io/", "istio.io/"},
	"waypoint":   {"k8s.io/", "sigs.k8s.io/", "istio.io/"},
	"ambit-node": {"k8s.io/", "sigs.k8s.io/", "istio.io/", "google.golang.org/grpc"},
	"ambit-cni":  {"k8s.io/", "sigs.k8s.io/", "istio.io/", "google.golang.org/grpc", "net/http"},
}

// TestLinkedModules compares what each binary links with its reviewed deps.txt.
func TestLinkedModules(t *testing.T) {
	cmds, err := os.ReadDir("cmd")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cmds {
		t.Run(c.Name(), func(t *testing.T) {
			out, err := exec.Command("go", "list", "-deps", "-f", `{{if .Module}}{{if not .Module.Main}}{{.Module.Path}}{{end}}{{else}}{{.ImportPath}}{{end}}`, "./cmd/"+c.Name()).Output()
			if err != nil {
				t.Fatalf("go list: %v", err)
			}
			linked := strings.Fields(string(out))
			for _, bad := range forbidden[c.Name()] {
				for _, l := range linked {
					if l == bad || strings.HasPrefix(l+"/", strings.TrimSuffix(bad, "/")+"/") {
						t.Errorf("links %s, which is forbidden", l)
						break
					}
				}
			}
			var modules []string
			for _, l := range linked {
				if host, _, _ := strings.Cut(l, "/"); strings.Contains(host, ".") {
					modules = append(modules, l)
				}
			}
			slices.Sort(modules)
			got := strings.Join(slices.Compact(modules), "\n") + "\n"
			path := filepath.Join("cmd", c.Name(), "deps.txt")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("linked modules differ from %s; read the difference, then `make deps`:\n%s", path, diff(string(want), got))
			}
		})
	}
}

func diff(want, got string) string {
	var b strings.Builder
	w, g := strings.Fields(want), strings.Fields(got)
	for _, m := range w {
		if !slices.Contains(g, m) {
			b.WriteString("- " + m + "\n")
		}
	}
	for _, m := range g {
		if !slices.Contains(w, m) {
			b.WriteString("+ " + m + "\n")
		}
	}
	return b.String()
}

func eachGoFile(t *testing.T, f func(path string)) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "bin" || d.Name() == ".cache" || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if strings.HasSuffix(path, ".go") {
			f(path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
