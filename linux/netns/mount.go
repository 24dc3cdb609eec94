package netns

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Mount gives the namespace a path, at which it lives until Unmount. The path must not exist; its folder must.
func (n *Namespace) Mount(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return fmt.Errorf("mount network namespace: %w", err)
	}
	_ = f.Close() // empty file
	// Only this process's own view of the descriptor is certain to be the namespace's: not all /proc mounts are ours.
	source := fmt.Sprintf("/proc/self/fd/%d", n.file.Fd())
	if err := unix.Mount(source, path, "", unix.MS_BIND, ""); err != nil {
		return errors.Join(fmt.Errorf("mount network namespace at %s: %w", path, err), os.Remove(path))
	}
	return nil
}

// Unmount takes the path away again. A path that is not there, or not mounted, is no error.
func Unmount(path string) error {
	err := unix.Unmount(path, unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount network namespace at %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove mount point of network namespace: %w", err)
	}
	return nil
}
