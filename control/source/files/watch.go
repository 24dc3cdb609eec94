package files

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// How long a batch waits for its last event, and at most for all of them.
const (
	quiet   = 20 * time.Millisecond
	longest = 200 * time.Millisecond
)

// errMissed says that some events never came.
var errMissed = errors.New("events were lost")

// watch follows a directory and all folders below it.
type watch struct {
	dir string
	fsn *fsnotify.Watcher
}

func newWatch(dir string) (*watch, error) {
	fsn, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	w := &watch{dir: dir, fsn: fsn}
	if err := fsn.Add(dir); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *watch) close() { _ = w.fsn.Close() } // only watches are lost, and they go with the process anyway

// everything lists all files, after each folder is watched.
func (w *watch) everything() ([]string, error) { return w.walk(w.dir) }

func (w *watch) walk(root string) ([]string, error) {
	var out []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // went while we looked
		}
		if err != nil {
			return err
		}
		if d.IsDir() {
			if err := w.fsn.Add(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("watch %s: %w", path, err)
			}
			return nil
		}
		name, err := filepath.Rel(w.dir, path)
		if err != nil {
			return err
		}
		out = append(out, name)
		return nil
	})
	return out, err
}

// next waits for changes and lists the files, below the directory, that may have changed.
func (w *watch) next(ctx context.Context) ([]string, error) {
	var out []string
	var settle, limit <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case err, ok := <-w.fsn.Errors:
			if !ok {
				return nil, errors.New("the watcher has ended")
			}
			if errors.Is(err, fsnotify.ErrEventOverflow) {
				return nil, errMissed
			}
			return nil, err
		case e, ok := <-w.fsn.Events:
			if !ok {
				return nil, errors.New("the watcher has ended")
			}
			if e.Op == fsnotify.Chmod {
				continue
			}
			name, err := filepath.Rel(w.dir, e.Name)
			if err != nil {
				return nil, err
			}
			out = append(out, name)
			if e.Has(fsnotify.Create) {
				// A new folder: files may have been made in it before it was watched.
				inside, err := w.walk(e.Name)
				if err != nil {
					return nil, err
				}
				out = append(out, inside...)
			}
			settle = time.After(quiet)
			if limit == nil {
				limit = time.After(longest)
			}
		case <-settle:
			return out, nil
		case <-limit:
			return out, nil
		}
	}
}
