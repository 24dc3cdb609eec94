package cli

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestUI07HostileArchivesWriteNothingElsewhere: what a pod sends is foreign.
func TestUI07HostileArchivesWriteNothingElsewhere(t *testing.T) {
	for _, c := range []struct {
		name    string
		entries []tar.Header
		fails   string
	}{
		{"dots", []tar.Header{{Name: "../out", Typeflag: tar.TypeReg}}, "not asked for"},
		{"dots inside", []tar.Header{{Name: "a/../../out", Typeflag: tar.TypeReg}}, "not asked for"},
		{"absolute", []tar.Header{{Name: "/out", Typeflag: tar.TypeReg}}, "not asked for"},
		{"another name", []tar.Header{{Name: "ab", Typeflag: tar.TypeReg}}, "not asked for"},
		{"link out, then through it", []tar.Header{{Name: "a", Typeflag: tar.TypeSymlink, Linkname: ".."}, {Name: "a/out", Typeflag: tar.TypeReg}}, ""},
		{"hard link", []tar.Header{{Name: "a", Typeflag: tar.TypeLink, Linkname: "../secret"}}, ""},
		{"device", []tar.Header{{Name: "a", Typeflag: tar.TypeChar}}, ""},
		{"through a link that was there", []tar.Header{{Name: "a/trap/out", Typeflag: tar.TypeReg}}, "trap"},
	} {
		t.Run("UI-07 "+c.name, func(t *testing.T) {
			top := t.TempDir()
			dir := filepath.Join(top, "in")
			if err := os.MkdirAll(filepath.Join(dir, "to"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(top, filepath.Join(dir, "to", "trap")); err != nil {
				t.Fatal(err)
			}
			root, err := os.OpenRoot(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			var b bytes.Buffer
			w := tar.NewWriter(&b)
			for _, h := range c.entries {
				if err := w.WriteHeader(&h); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			_, err = unpack(&b, root, "a", "to")
			if (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) {
				t.Errorf("%v, want %q", err, c.fails)
			}
			if _, err := os.Lstat(filepath.Join(top, "out")); err == nil {
				t.Error("written outside")
			}
		})
	}
}

func TestPackAndUnpack(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	for name, text := range map[string]string{"x": "one", "d/y": "two"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(src, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(src, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(src, "link")); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := pack(&b, src, "a"); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dst)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if _, err := unpack(&b, root, "a", "b"); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dst, "b/d/y"))
	if err != nil || string(got) != "two" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := os.Lstat(filepath.Join(dst, "b/link")); err == nil {
		t.Error("a link was copied")
	}
}

func FuzzUnpack(f *testing.F) {
	var b bytes.Buffer
	if err := pack(&b, "testdata", "a"); err != nil {
		w := tar.NewWriter(&b)
		_ = w.WriteHeader(&tar.Header{Name: "a", Typeflag: tar.TypeReg})
		_ = w.Close()
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		_, _ = unpack(bytes.NewReader(data), root, "a", "b") // it may fail, and must stay inside
	})
}
