package files

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

// watch follows a directory and all folders below it.
type watch struct {
	dir    string
	root   os.FileInfo // as it was when the watch began
	fsn    *fsnotify.Watcher
	agenda *agenda
	// trouble is what folders cannot be followed, and why, by name below dir.
	trouble map[string]error
}

func newWatch(dir string) (*watch, error) {
	fsn, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	w := &watch{dir: dir, fsn: fsn, agenda: newAgenda(), trouble: map[string]error{}}
	if w.root, err = os.Stat(dir); err == nil && !w.root.IsDir() {
		err = errors.New("is not a directory")
	}
	if err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *watch) close() { _ = w.fsn.Close() } // only watches are lost, and they go with the process anyway

// gone says why the directory is not the one that is watched, or nil. Its files have not been taken away then.
func (w *watch) gone() error {
	now, err := os.Stat(w.dir)
	switch {
	case err != nil:
		return err
	case !os.SameFile(now, w.root):
		return errors.New("another directory is in its place")
	}
	return nil
}

// walk lists the files below a folder, after each folder is watched. A folder that cannot be read is noted as trouble.
func (w *watch) walk(root string) []string {
	var out []string
	_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		name, relErr := filepath.Rel(w.dir, path)
		if relErr != nil {
			return fs.SkipDir // not below us
		}
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // went while we looked
		case err != nil:
			w.trouble[name] = err
			return fs.SkipDir
		case !d.IsDir():
			out = append(out, name)
			return nil
		}
		delete(w.trouble, name)
		if err := w.fsn.Add(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			if errors.Is(err, syscall.ENOSPC) {
				err = fmt.Errorf("the kernel has no watches left (sysctl fs.inotify.max_user_watches): %w", err)
			}
			w.trouble[name] = err
		}
		return nil
	})
	return out
}

// event notes on the agenda what an event of the kernel means. all tells that everything must be read again.
func (w *watch) event(e fsnotify.Event, now time.Time) (all bool) {
	if e.Op == fsnotify.Chmod {
		return false
	}
	name, err := filepath.Rel(w.dir, e.Name)
	if err != nil || name == "." {
		return true
	}
	if strings.HasPrefix(filepath.Base(name), "..") {
		return true // a volume of Kubernetes, which exchanges all of its files by one link
	}
	if e.Has(fsnotify.Write) && !e.Has(fsnotify.Create) {
		w.agenda.written(now, name)
		return false
	}
	w.agenda.changed(now, name)
	if e.Has(fsnotify.Create) {
		// A new folder: files may have been made in it before it was watched.
		w.agenda.changed(now, w.walk(e.Name)...)
	}
	return false
}
