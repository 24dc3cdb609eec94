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
	k := kinds.Of(o)
	if why := kinds.BadName(k, o.GetName()); why != "" {
		return fmt.Errorf("write %s: %s", k.Kind, why)
	}
	data, err := kinds.Encode(o)
	if err != nil {
		return err
	}
	path := filepath.Join(w.dir, Path(k, o.GetNamespace(), o.GetName()))
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) {
		return nil
	}
	if err := replace(path, data); err != nil {
		return fmt.Errorf("write %s %s: %w", k.Kind, o.GetName(), err)
	}
	return nil
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

// replace puts data at path so that readers see the old or the new file whole.
func replace(path string, data []byte) error {
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
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
