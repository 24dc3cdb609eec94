package files

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// kept is a directory with what files said while they were good, for a control plane that starts while they are not.
// Policies and routes are always kept: they must not be lost while nobody looks. Anything else is once its file breaks.
type kept string

func (k kept) path(name string) string { return filepath.Join(string(k), name+".kept") }

// important reports whether a file must be kept in good times too.
func important(c *content) bool {
	for _, e := range c.objects {
		if g := e.ref.Kind.Group; strings.HasSuffix(g, "istio.io") || g == "gateway.networking.k8s.io" {
			return true
		}
	}
	return false
}

// printable is r, or a mark where YAML would not have it even in a comment.
func printable(r rune) rune {
	if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
		return '?'
	}
	return r
}

// save keeps what is in force of a file, with a word about why.
func (k kept) save(name string, c *content, why string) error {
	if k == "" {
		return nil
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "# What %q said when it was good.\n", name)
	for line := range strings.Lines(why) {
		fmt.Fprintf(&out, "# %s\n", strings.Map(printable, strings.TrimSpace(line)))
	}
	for _, i := range slices.SortedFunc(maps.Keys(c.objects), func(a, b id) int { return strings.Compare(a.resource+a.key, b.resource+b.key) }) {
		o := c.objects[i].object
		if o == nil {
			continue // of a kind that nobody here reads
		}
		text, err := kinds.Encode(o)
		if err != nil {
			return err
		}
		out.WriteString("---\n")
		out.Write(text)
	}
	path := k.path(name)
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, out.Bytes()) {
		return nil
	}
	if err := put(path, out.Bytes(), os.Rename); err != nil {
		return fmt.Errorf("keep what %s says: %w", name, err)
	}
	return nil
}

// forget drops what is kept of a file.
func (k kept) forget(name string) error {
	if k == "" {
		return nil
	}
	if err := os.Remove(k.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget what %s said: %w", name, err)
	}
	return nil
}

// load gives what is kept of a file; nil for nothing.
func (k kept) load(name string) ([]byte, error) {
	if k == "" {
		return nil, nil
	}
	return readFile(k.path(name))
}

// sweep drops what is kept of files that are there no more: they were taken away while nobody looked.
func (k kept) sweep(there []string) error {
	if k == "" {
		return nil
	}
	names := map[string]bool{}
	for _, n := range there {
		names[k.path(n)] = true
	}
	err := filepath.WalkDir(string(k), func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if !d.IsDir() && strings.HasSuffix(path, ".kept") && !names[path] {
			return os.Remove(path)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("tidy %s: %w", string(k), err)
	}
	return nil
}
