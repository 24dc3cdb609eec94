package netns

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Do runs f on a thread that is inside ns and waits for it. Sockets made by f itself stay in ns;
// goroutines that f starts run outside. A nil ns runs f where the process is.
func Do(ns *Namespace, f func() error) error {
	if ns == nil {
		return f()
	}
	return onThread(ns.home, func() error {
		if err := unix.Setns(int(ns.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace %d: %w", ns.id.Inode, err)
		}
		return f()
	})
}

// onThread runs f on a thread of its own and puts the thread back where it was: home opens that place, or has done so
// before. A thread that cannot return stays locked to its finished goroutine, which makes the runtime end it.
func onThread(home func() (*os.File, error), f func() error) error {
	// Set before f runs, so that an f that never returns (runtime.Goexit) is an error and not a success.
	err := errors.New("function left the network namespace without returning")
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		back, e := home()
		if e != nil {
			err = e
			return
		}
		defer func() {
			if unix.Setns(int(back.Fd()), unix.CLONE_NEWNET) == nil {
				runtime.UnlockOSThread()
			}
		}()
		err = f()
	}()
	<-done
	return err
}
