package hostview

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/node/internal/procns"
)

// Root is the node's file system, such as /proc/1/root of its own processes shows it.
type Root string

// Open opens a file of the node to read it.
func (r Root) Open(path string) (*os.File, error) { return r.open(path, unix.O_RDONLY|unix.O_NONBLOCK) }

// open opens a path as the node itself would: a link leads where it leads there, and not out.
func (r Root) open(path string, flags uint64) (*os.File, error) {
	root, err := unix.Open(string(r), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the node's root %s: %w", r, errors.New(err.Error())) // not what is missing on the node
	}
	defer unix.Close(root)
	fd, err := unix.Openat2(root, path, &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return nil, &os.PathError{Op: "open on the node", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// maxFile is more than a configuration of a runtime has.
const maxFile = 1 << 20

func (r Root) read(path string) (string, error) {
	f, err := r.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile))
	return string(b), err
}

// names are those of a directory, in order; none if it is not there.
func (r Root) names(path string) []string {
	d, err := r.open(path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil
	}
	defer d.Close()
	all, err := d.Readdirnames(-1)
	if err != nil {
		return nil
	}
	slices.Sort(all)
	return all
}

// Same reports whether a path of the node is the file that this process knows as own. One that is missing is not.
func (r Root) Same(path, own string) (bool, error) {
	f, err := r.open(path, unix.O_PATH)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	there, err := f.Stat()
	if err != nil {
		return false, err
	}
	here, err := os.Stat(own)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(there, here), err
}

// Process is one that may be a container runtime.
type Process struct {
	Name string // of its program
	Args []string
}

// Processes are those of a /proc that are in no pod: a pod may run whatever it likes under whatever name.
func Processes(proc string) ([]Process, error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, fmt.Errorf("processes of the node: %w", err)
	}
	var all []Process
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		group, err := os.ReadFile(filepath.Join(proc, e.Name(), "cgroup"))
		if err != nil || len(procns.UIDs(string(group))) > 0 {
			continue
		}
		b, err := os.ReadFile(filepath.Join(proc, e.Name(), "cmdline"))
		if err != nil || len(b) == 0 {
			continue // gone, or the kernel's own
		}
		args := strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
		all = append(all, Process{Name: filepath.Base(args[0]), Args: args[1:]})
	}
	return all, nil
}
