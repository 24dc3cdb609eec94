// Package netns opens, makes and enters network namespaces.
package netns

import (
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// ID identifies a network namespace for as long as it lives: two handles are the same namespace if their IDs are equal.
type ID struct{ Dev, Inode uint64 }

// Namespace is a handle that keeps a network namespace alive until it is closed.
// Wherever a *Namespace is taken, nil means the one that the process itself runs in.
type Namespace struct {
	file *os.File
	id   ID

	mu   sync.Mutex // guards below
	back *os.File   // where the process runs, once Do has needed it: it is opened for thousands of connections
	held map[int]io.Closer
}

// Open opens the namespace that a path names: a bind mount made by Mount, or /proc/<pid>/ns/net.
func Open(path string) (*Namespace, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	ns, err := FromFile(f)
	if err != nil {
		_ = f.Close() // the error that counts is the first
		return nil, err
	}
	return ns, nil
}

// FromFile takes over a descriptor of a network namespace, such as one received over a socket.
// On error the file stays the caller's.
func FromFile(f *os.File) (*Namespace, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, fmt.Errorf("identify network namespace %s: %w", f.Name(), err)
	}
	if err := isNetNS(f); err != nil {
		return nil, err
	}
	return &Namespace{file: f, id: ID{Dev: st.Dev, Inode: st.Ino}}, nil
}

// isNetNS refuses descriptors of anything else, so that a foreign descriptor cannot reach setns or be kept open.
func isNetNS(f *os.File) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return fmt.Errorf("identify network namespace %s: %w", f.Name(), err)
	}
	if fs.Type != unix.NSFS_MAGIC {
		return fmt.Errorf("%s is not a network namespace", f.Name())
	}
	kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	if err != nil {
		return fmt.Errorf("identify network namespace %s: %w", f.Name(), err)
	}
	if kind != unix.CLONE_NEWNET {
		return fmt.Errorf("%s is a namespace of another kind (%#x), not a network namespace", f.Name(), kind)
	}
	return nil
}

// Current opens the namespace that the process runs in.
func Current() (*Namespace, error) { return Open("/proc/thread-self/ns/net") }

// New makes an empty namespace; its loopback is down. It lives while a handle, a mount, a socket or a process holds it.
func New() (*Namespace, error) {
	var ns *Namespace
	here := &Namespace{}
	err := onThread(here.home, func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make network namespace: %w", err)
		}
		made, err := Current()
		if err != nil {
			return err
		}
		ns = made
		return nil
	})
	if here.back != nil {
		_ = here.back.Close() // read-only descriptor: nothing can be lost
	}
	return ns, err
}

// ID tells namespaces apart.
func (n *Namespace) ID() ID { return n.id }

// Inode is the number by which tools such as lsns name the namespace.
func (n *Namespace) Inode() uint64 { return n.id.Inode }

// File is the descriptor, owned by the Namespace.
func (n *Namespace) File() *os.File { return n.file }

// Dup opens a second handle with a life of its own.
func (n *Namespace) Dup() (*Namespace, error) {
	fd, err := unix.FcntlInt(n.file.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("duplicate network namespace %d: %w", n.id.Inode, err)
	}
	return &Namespace{file: os.NewFile(uintptr(fd), n.file.Name()), id: n.id}, nil
}

// home is the namespace that threads of the process are in when they have no errand elsewhere.
func (n *Namespace) home() (*os.File, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.back == nil {
		here, err := Current()
		if err != nil {
			return nil, err
		}
		n.back = here.file
	}
	return n.back, nil
}

// Hold keeps what works inside the namespace at hand for others, each under its number, until it is released or the handle is
// closed: to enter a namespace costs more than what is mostly done there.
func (n *Namespace) Hold(all map[int]io.Closer) (release func()) {
	n.mu.Lock()
	before := n.held
	n.held = all
	n.mu.Unlock()
	return func() {
		n.mu.Lock()
		n.held = before
		n.mu.Unlock()
		closeAll(all)
	}
}

// Held is what is kept under a number, nil if nothing is.
func (n *Namespace) Held(number int) io.Closer {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.held[number]
}

func closeAll(all map[int]io.Closer) {
	for _, c := range all {
		c.Close()
	}
}

// Close lets the namespace go.
func (n *Namespace) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	closeAll(n.held)
	n.held = nil
	if n.back != nil {
		_ = n.back.Close() // read-only descriptor: nothing can be lost
	}
	if err := n.file.Close(); err != nil {
		return fmt.Errorf("close network namespace %d: %w", n.id.Inode, err)
	}
	return nil
}
