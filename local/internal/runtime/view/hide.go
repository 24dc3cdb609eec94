package view

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/local/internal/runtime/caps"
)

// hide covers directories of the machine in this process's own mount namespace, after the sources of mounts were taken
// and before anything is shown: whatever shows them later shows the cover.
func hide(dirs []string) error {
	for _, dir := range dirs {
		err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_RDONLY, "mode=555,size=4k")
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("hide %s: %w", dir, err)
		}
	}
	return nil
}

// sealSettings keeps a process from changing the kernel's settings: those that are not the pod's are the machine's.
// One that may mount could undo it.
func (b *builder) sealSettings(have caps.Set) error {
	if have.Has(1 << unix.CAP_SYS_ADMIN) {
		return nil
	}
	for _, path := range []string{"/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus"} {
		at := b.root + path
		if _, err := os.Lstat(at); errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err := bind(at, at, true); err != nil {
			return fmt.Errorf("seal %s: %w", path, err)
		}
	}
	return nil
}
