// Package view gives a process a file system of its own, made of the machine's, and starts it there.
//
// The machine's directories are seen read-only at their own paths, so that its programs run; /run, /tmp, /dev and /etc
// are private. Mount points that the machine does not have are made inside without touching it: a directory that lacks
// one is replaced by a memory file system that shows the directory's entries.
package view

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/local/internal/runtime/caps"
)

// Name is what the binary is called by (argument 0) when it is to set up a view and become the program in it.
const Name = "ambit-view"

// Called tells whether a program name (argument 0) is ours.
func Called(arg0 string) bool { return filepath.Base(arg0) == Name }

// Mount shows a directory or file of the outside at a path of the view.
type Mount struct {
	Source   string // "": a new memory file system
	Target   string
	ReadOnly bool
}

// Spec says what the process sees and is.
type Spec struct {
	Mounts   []Mount
	Files    map[string]string // small files, by path
	Links    map[string]string // symbolic links, by path
	Hidden   []string          // directories of the machine that are seen empty, wherever they are seen
	Hostname string            // "": as outside
	Caps     caps.Set          // what the process may do of what its starter may
	Argv     []string
	Env      []string
	Dir      string
}

// Process says how to start a program in a view.
type Process struct {
	Spec Spec
	// NS is the network namespace. nil: the caller's.
	NS *netns.Namespace
	// OwnPIDs gives the process a PID namespace of its own, in which it is 1; all in it end with it.
	OwnPIDs bool
	Stdin   io.Reader
	Stdout  io.Writer
	Stderr  io.Writer
}

// Start starts the program. When it returns without error the program itself is running.
func Start(p Process) (*exec.Cmd, error) {
	spec, err := json.Marshal(p.Spec)
	if err != nil {
		return nil, fmt.Errorf("write the view's specification: %w", err)
	}
	specIn, specOut, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer specIn.Close()
	errIn, errOut, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, specOut.Close())
	}
	defer errIn.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{Name}
	cmd.Env = []string{"GOMAXPROCS=1", "GOGC=off"} // the helper lives for milliseconds
	cmd.Stdin, cmd.Stdout, cmd.Stderr = p.Stdin, p.Stdout, p.Stderr
	cmd.ExtraFiles = []*os.File{specIn, errOut} // descriptors 3 and 4
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWUTS, Setsid: true}
	if p.OwnPIDs {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWPID
	}
	err = netns.Do(p.NS, cmd.Start)
	closed := errOut.Close()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the view: %w", err), closed, specOut.Close())
	}
	_, werr := specOut.Write(spec)
	werr = errors.Join(werr, specOut.Close(), closed)
	said, rerr := io.ReadAll(errIn)
	if len(said) > 0 {
		return nil, errors.Join(errors.New(string(said)), waited(cmd))
	}
	if err := errors.Join(werr, rerr); err != nil {
		return nil, errors.Join(fmt.Errorf("talk to the view: %w", err), cmd.Process.Kill(), waited(cmd))
	}
	return cmd, nil
}

// waited collects a process whose exit status says nothing new.
func waited(cmd *exec.Cmd) error {
	err := cmd.Wait()
	if _, ok := errors.AsType[*exec.ExitError](err); ok {
		return nil
	}
	return err
}

// Main is the helper: it reads the specification, sets up the view and becomes the program. It returns only on failure.
func Main() int {
	in, out := os.NewFile(3, "specification"), os.NewFile(4, "error")
	unix.CloseOnExec(4)
	err := become(in)
	if _, werr := fmt.Fprint(out, err); werr != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return 127
}

func become(in *os.File) error {
	var s Spec
	if err := json.NewDecoder(in).Decode(&s); err != nil {
		return fmt.Errorf("read the view's specification: %w", err)
	}
	if err := in.Close(); err != nil {
		return err
	}
	if err := build(s); err != nil {
		return fmt.Errorf("build the view: %w", err)
	}
	if s.Hostname != "" {
		if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
			return fmt.Errorf("set the host name: %w", err)
		}
	}
	if s.Dir != "" {
		if err := os.Chdir(s.Dir); err != nil {
			return fmt.Errorf("working directory: %w", err)
		}
	}
	path, err := Look(s.Argv[0], s.Env)
	if err != nil {
		return err
	}
	goruntime.LockOSThread()
	if err := s.Caps.Confine(); err != nil {
		return err
	}
	return fmt.Errorf("run %s: %w", path, unix.Exec(path, s.Argv, s.Env))
}

// Look finds a program by the PATH of an environment.
func Look(name string, env []string) (string, error) {
	for _, path := range Candidates(name, env) {
		if st, err := os.Stat(path); err == nil && !st.IsDir() && st.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("%q: %w", name, ErrNoProgram)
}

// ErrNoProgram means that a program is not there.
var ErrNoProgram = errors.New("executable file not found in $PATH")

// Candidates are the paths at which a program may be.
func Candidates(name string, env []string) []string {
	if filepath.Base(name) != name {
		return []string{name}
	}
	var all []string
	for _, dir := range filepath.SplitList(lookup(env, "PATH")) {
		if dir == "" {
			dir = "."
		}
		all = append(all, filepath.Join(dir, name))
	}
	return all
}

// lookup is the last value that an environment gives a name.
func lookup(env []string, name string) (value string) {
	for _, e := range env {
		if len(e) > len(name) && e[:len(name)] == name && e[len(name)] == '=' {
			value = e[len(name)+1:]
		}
	}
	return value
}
