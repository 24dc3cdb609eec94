package script

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRunComparesSections(t *testing.T) {
	path := filepath.Join(t.TempDir(), "upper.txtar")
	if err := os.WriteFile(path, []byte("a comment\n-- in --\nx\n-- out --\nX\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ran := 0
	Run(t, path, func(t *testing.T, s *File) {
		ran++
		s.Want("out", strings.ToUpper(s.Text("in")))
		seen := &recorder{TB: t}
		(&File{seen, s.archive}).Want("out", "Y\n")
		if !seen.failed {
			t.Error("a section that differs did not fail the test")
		}
	})
	if ran != 1 {
		t.Errorf("ran %d files, want 1", ran)
	}
}

type recorder struct {
	testing.TB
	failed bool
}

func (r *recorder) Helper()               {}
func (r *recorder) Errorf(string, ...any) { r.failed = true }
