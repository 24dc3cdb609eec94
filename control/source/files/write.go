package files

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// Writer keeps objects in a directory, one file each, for others that watch it.
type Writer struct{ dir string }

// NewWriter writes below dir.
func NewWriter(dir string) Writer { return Writer{dir} }

// Path is where an object of kind k has its file: <namespace or _cluster>/<plural>[.group]/<name>.yaml.
func Path(k kinds.Kind, namespace, name string) string {
	if namespace == "" {
		namespace = "_cluster"
	}
	return filepath.Join(namespace, k.Resource(), name+".yaml")
}

// Apply writes an object, atomically and readable by its owner only. The same content is left alone.
func (w Writer) Apply(_ context.Context, o kinds.Object) error {
	path, data, err := w.file(o)
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) {
		return nil
	}
	if err := put(path, data, os.Rename); err != nil {
		return fmt.Errorf("write %s: %w", Path(kinds.Of(o), o.GetNamespace(), o.GetName()), err)
	}
	return nil
}

// Create is Apply for an object that must not exist: not even as a file that cannot be read.
func (w Writer) Create(_ context.Context, o kinds.Object) error {
	path, data, err := w.file(o)
	if err != nil {
		return err
	}
	// A link, unlike a rename, fails where something is already.
	err = put(path, data, func(from, to string) error { return errors.Join(os.Link(from, to), os.Remove(from)) })
	if err != nil {
		return fmt.Errorf("create %s: %w", Path(kinds.Of(o), o.GetNamespace(), o.GetName()), err)
	}
	return nil
}

func (w Writer) file(o kinds.Object) (path string, data []byte, err error) {
	k := kinds.Of(o)
	if why := kinds.BadName(k, o.GetName()); why != "" {
		return "", nil, fmt.Errorf("write %s: %s", k.Kind, why)
	}
	if data, err = kinds.Encode(o); err != nil {
		return "", nil, err
	}
	return filepath.Join(w.dir, Path(k, o.GetNamespace(), o.GetName())), data, nil
}

// Delete removes an object's file; one that is not there is no error.
func (w Writer) Delete(_ context.Context, k kinds.Kind, namespace, name string) error {
	if why := kinds.BadName(k, name); why != "" {
		return fmt.Errorf("delete %s: %s", k.Kind, why)
	}
	err := os.Remove(filepath.Join(w.dir, Path(k, namespace, name)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete %s %s: %w", k.Kind, name, err)
	}
	return nil
}

// Read gives what an object's file holds; nil without a file.
func (w Writer) Read(_ context.Context, k kinds.Kind, namespace, name string) (kinds.Object, error) {
	if why := kinds.BadName(k, name); why != "" {
		return nil, fmt.Errorf("read %s: %s", k.Kind, why)
	}
	path := Path(k, namespace, name)
	data, err := readFile(filepath.Join(w.dir, path))
	if err != nil || data == nil {
		return nil, err
	}
	found, err := kinds.Decode(path, data)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(found) != 1 || kinds.Of(found[0].Object).Resource() != k.Resource() {
		return nil, fmt.Errorf("read %s: it does not hold one %s", path, k.Kind)
	}
	return found[0].Object, nil
}

// put makes data the content of path so that readers see all of it or nothing.
func put(path string, data []byte, into func(from, to string) error) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".new-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = into(f.Name(), path)
	}
	if err != nil {
		if gone := os.Remove(f.Name()); !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, gone)
		}
		return err
	}
	return nil
}
