package procns

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/linux/netns"
)

// fresh is how long a look at all processes is believed: many pods join together. What is found is looked at again.
const fresh = 500 * time.Millisecond

// maxCgroup is more than a process's cgroup file holds.
const maxCgroup = 16 << 10

// Finder looks through one /proc. Its processes' namespaces can be opened by who has SYS_PTRACE.
type Finder struct {
	dir string

	mu   sync.Mutex // guards below
	read time.Time
	pids map[string][]int // by the UID of each pod that a process is in
}

// New makes a finder for a /proc of the node's own processes.
func New(dir string) *Finder { return &Finder{dir: dir} }

// Of opens each network namespace that processes of a pod are in. known tells the pods of this node: of a process that seems
// to be in several, the outermost of them has it.
func (f *Finder) Of(uid string, known func(uid string) bool) ([]*netns.Namespace, error) {
	var found []*netns.Namespace
	var failed []error
	pids, err := f.of(uid)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, pid := range pids {
		path := f.path(pid, "ns/net")
		name, err := os.Readlink(path)
		if err != nil {
			failed = append(failed, unlessGone(err))
			continue
		}
		if seen[name] {
			continue
		}
		ns, err := netns.Open(path)
		if err != nil {
			failed = append(failed, unlessGone(err))
			continue
		}
		if f.owner(pid, known) != uid { // after it was opened: the number may be another process's by now
			failed = append(failed, ns.Close())
			continue
		}
		seen[name] = true
		found = append(found, ns)
	}
	if len(found) == 0 {
		if err := errors.Join(failed...); err != nil {
			return nil, fmt.Errorf("network namespace of pod %s by its processes: %w (CAP_SYS_PTRACE and no AppArmor profile are needed)", uid, err)
		}
	}
	return found, nil
}

// Each shows f the network namespaces of all pods' processes, each once.
func (f *Finder) Each(show func(*netns.Namespace)) error {
	f.mu.Lock()
	err := f.readLocked()
	var pids []int
	for _, of := range f.pids {
		pids = append(pids, of...)
	}
	f.mu.Unlock()
	seen := map[string]bool{}
	for _, pid := range pids {
		path := f.path(pid, "ns/net")
		name, err := os.Readlink(path)
		if err != nil || seen[name] {
			continue // gone, or shown
		}
		ns, err := netns.Open(path)
		if err != nil {
			continue
		}
		seen[name] = true
		show(ns)
		ns.Close()
	}
	return err
}

// owner is the pod that a process is of, "" if of none that is known.
func (f *Finder) owner(pid int, known func(string) bool) string {
	for _, uid := range UIDs(f.cgroup(pid)) {
		if known(uid) {
			return uid
		}
	}
	return ""
}

func (f *Finder) of(uid string) ([]int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if pids := f.pids[uid]; len(pids) > 0 && time.Since(f.read) < fresh {
		return pids, nil
	}
	err := f.readLocked()
	return f.pids[uid], err
}

func (f *Finder) readLocked() error {
	d, err := os.Open(f.dir)
	if err != nil {
		return fmt.Errorf("processes of the node: %w", err)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("processes of the node: %w", err)
	}
	f.read, f.pids = time.Now(), map[string][]int{}
	for _, n := range names {
		pid, err := strconv.Atoi(n)
		if err != nil {
			continue
		}
		for _, uid := range UIDs(f.cgroup(pid)) {
			f.pids[uid] = append(f.pids[uid], pid)
		}
	}
	return nil
}

// cgroup is the text of a process's cgroup file, "" if it is gone.
func (f *Finder) cgroup(pid int) string {
	c, err := os.Open(f.path(pid, "cgroup"))
	if err != nil {
		return ""
	}
	defer c.Close()
	b, err := io.ReadAll(io.LimitReader(c, maxCgroup))
	if err != nil {
		return ""
	}
	return string(b)
}

func (f *Finder) path(pid int, name string) string {
	return filepath.Join(f.dir, strconv.Itoa(pid), name)
}

// unlessGone is nil for a process that has ended.
func unlessGone(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
