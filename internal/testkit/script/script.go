// Package script runs txtar files as tests: some sections are input, others are what must come out.
package script

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/ambit-mesh/ambit/internal/testkit/golden"
)

// File is one txtar file while its test runs.
type File struct {
	t       testing.TB
	archive *txtar.Archive
}

// Run runs f as a subtest for each file that matches pattern; no match fails. `go test -update` rewrites the
// sections that f compared.
func Run(t *testing.T, pattern string, f func(t *testing.T, s *File)) {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	if len(paths) == 0 {
		t.Fatalf("no file matches %s", pattern)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			f(t, &File{t, a})
			if golden.Updating() && !t.Failed() {
				if err := os.WriteFile(path, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// Sections lists the names of the sections, in order.
func (s *File) Sections() []string {
	names := make([]string, len(s.archive.Files))
	for i, f := range s.archive.Files {
		names[i] = f.Name
	}
	return names
}

// Text gives a section; the test fails when there is none.
func (s *File) Text(name string) string {
	s.t.Helper()
	for _, f := range s.archive.Files {
		if f.Name == name {
			return string(f.Data)
		}
	}
	s.t.Fatalf("script has no section %q", name)
	return ""
}

// Want compares a section with what came out.
func (s *File) Want(name, got string) {
	s.t.Helper()
	if golden.Updating() {
		for i := range s.archive.Files {
			if s.archive.Files[i].Name == name {
				s.archive.Files[i].Data = []byte(got)
				return
			}
		}
		s.archive.Files = append(s.archive.Files, txtar.File{Name: name, Data: []byte(got)})
		return
	}
	if diff := cmp.Diff(s.Text(name), got); diff != "" {
		s.t.Errorf("%s: -want +got:\n%s", name, diff)
	}
}
