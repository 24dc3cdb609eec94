package view

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// source is what a mount shows, taken before the view hides or holds it. The zero value is a directory of memory.
type source struct {
	tree *os.File // nil: memory
	dir  bool
}

// opened takes the source of every mount, by the mount's target.
func opened(mounts []Mount) (map[string]source, error) {
	all := map[string]source{}
	for _, m := range mounts {
		if m.Source == "" {
			all[m.Target] = source{dir: true}
			continue
		}
		if _, twice := all[m.Target]; twice {
			return nil, fmt.Errorf("mount %s: it is mounted twice", m.Target)
		}
		st, err := os.Stat(m.Source)
		if err != nil {
			return nil, fmt.Errorf("mount %s: %w", m.Target, err)
		}
		tree, err := clone(m.Source)
		if err != nil {
			return nil, fmt.Errorf("mount %s: take %s: %w", m.Target, m.Source, err)
		}
		all[m.Target] = source{tree: tree, dir: st.IsDir()}
	}
	return all, nil
}

// clone is a copy of the mounts at a path and below that is not mounted anywhere yet.
func clone(path string) (*os.File, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// attach mounts the source, once.
func (s source) attach(at string, readOnly bool) error {
	fd := int(s.tree.Fd())
	if readOnly {
		if err := seal(fd, ""); err != nil {
			return err
		}
	}
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return err
	}
	return s.tree.Close()
}

// bind shows a path at another place too, with all mounted below it.
func bind(path, at string, readOnly bool) error {
	if err := unix.Mount(path, at, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	if !readOnly {
		return nil
	}
	return seal(unix.AT_FDCWD, at)
}

// seal makes a mount and all below it read-only.
func seal(dir int, path string) error {
	flags := uint(unix.AT_RECURSIVE)
	if path == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	if err := unix.MountSetattr(dir, path, flags, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return fmt.Errorf("make read-only: %w", err)
	}
	return nil
}
