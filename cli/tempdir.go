package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// ownerFile is in every directory of ownDir, locked for as long as its process lives.
const ownerFile = ".owner"

// ownDir makes a temporary directory and removes those of the same prefix whose processes were killed and could not.
func ownDir(prefix string) (dir string, remove func() error, err error) {
	err = removeDead(prefix)
	dir, merr := os.MkdirTemp("", prefix)
	if merr != nil {
		return "", nil, errors.Join(merr, err)
	}
	// It gets its name once it is locked: a directory with an owner file that nobody has locked is one of the dead.
	lock, lerr := os.OpenFile(filepath.Join(dir, ownerFile+".new"), os.O_CREATE|os.O_RDWR|os.O_EXCL, 0o600)
	if lerr == nil {
		lerr = errors.Join(take(lock), os.Rename(lock.Name(), filepath.Join(dir, ownerFile)))
	}
	remove = func() error { return errors.Join(os.RemoveAll(dir), lock.Close()) }
	if err := errors.Join(err, lerr); err != nil {
		return "", nil, errors.Join(fmt.Errorf("temporary directory: %w", err), remove())
	}
	return dir, remove, nil
}

// take locks a file for this process; the kernel lets go of it when the process ends, however it does.
func take(f *os.File) error {
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
}

// removeDead removes directories of a prefix that this user made and whose owner is gone. Others are not touched: not
// those of other users, not links, not those without an owner file.
func removeDead(prefix string) error {
	found, err := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range found {
		st, err := os.Lstat(dir)
		if err != nil || !st.IsDir() {
			continue
		}
		if of, ok := st.Sys().(*syscall.Stat_t); !ok || int(of.Uid) != os.Geteuid() {
			continue
		}
		f, err := os.OpenFile(filepath.Join(dir, ownerFile), os.O_RDWR|syscall.O_NOFOLLOW, 0)
		if err != nil {
			continue
		}
		if take(f) == nil {
			errs = append(errs, os.RemoveAll(dir))
		}
		f.Close()
	}
	return errors.Join(errs...)
}
