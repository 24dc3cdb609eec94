package netns

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

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

// Inside is a stay of the calling goroutine in a namespace: it, and nothing else, is there between Enter and Leave.
type Inside struct {
	home *os.File
	in   bool
}

// Enter takes the calling goroutine, with its thread, into ns until Leave. It is for a step or two: cheaper than Do, whose
// function gets a goroutine of its own. What is not called on the same goroutine stays outside. A nil ns enters nothing.
func Enter(ns *Namespace) (*Inside, error) {
	if ns == nil {
		return &Inside{}, nil
	}
	home, err := ns.home()
	if err != nil {
		return nil, err
	}
	runtime.LockOSThread()
	if err := unix.Setns(int(ns.file.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("enter network namespace %d: %w", ns.id.Inode, err)
	}
	return &Inside{home, true}, nil
}

// Leave takes the goroutine back, and reports whether it was inside. The kernel refuses that only for want of memory. If it
// goes on refusing, nothing that this goroutine does may happen in the wrong namespace: the program ends.
func (i *Inside) Leave() bool {
	if !i.in {
		return false
	}
	err := unix.Setns(int(i.home.Fd()), unix.CLONE_NEWNET)
	for range leaveTries {
		if err == nil {
			break
		}
		time.Sleep(leaveTries * time.Millisecond)
		err = unix.Setns(int(i.home.Fd()), unix.CLONE_NEWNET)
	}
	if err != nil {
		panic(fmt.Sprintf("leave a network namespace: %v", err))
	}
	i.in = false
	runtime.UnlockOSThread()
	return true
}

const leaveTries = 10

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
