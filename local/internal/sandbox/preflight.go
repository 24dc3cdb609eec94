package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Problem is something that keeps a local cluster from running here.
type Problem struct {
	What  string // what is missing
	Allow string // how to allow it
}

func (p Problem) String() string { return p.What + "\n    " + p.Allow }

// facts are what Preflight learns of the machine.
type facts struct {
	Kernel     string // as uname says it
	UID        int
	Settings   map[string]string // of /proc/sys, those that exist
	NoNewPrivs bool
	Seccomp    bool
	Capable    bool              // root with the capabilities that it needs
	Container  bool              // as far as one can tell
	Namespaces error             // why none could be made
	Missing    map[string]string // probe: error
}

// The settings that decide about user namespaces, by their name in /proc/sys.
const (
	clone    = "kernel/unprivileged_userns_clone"
	most     = "user/max_user_namespaces"
	mostNet  = "user/max_net_namespaces"
	apparmor = "kernel/apparmor_restrict_unprivileged_userns"
)

// Preflight says what is missing for a local cluster, and how to allow it; nothing missing, no problems. It tries
// everything for real in a throw-away sandbox. The program's main must call ProbeMain if Probing.
func Preflight(ctx context.Context) []Problem {
	f := facts{UID: os.Geteuid(), Settings: map[string]string{}, Capable: !needsUserNamespace()}
	var u unix.Utsname
	if err := unix.Uname(&u); err == nil {
		f.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	for _, name := range []string{clone, most, mostNet, apparmor} {
		if b, err := os.ReadFile("/proc/sys/" + name); err == nil {
			f.Settings[name] = strings.TrimSpace(string(b))
		}
	}
	f.NoNewPrivs = field("NoNewPrivs") == "1"
	f.Seccomp = field("Seccomp") == "2"
	for _, path := range []string{"/.dockerenv", "/run/.containerenv"} {
		if _, err := os.Stat(path); err == nil {
			f.Container = true
		}
	}
	f.Missing, f.Namespaces = probe(ctx)
	return judge(f)
}

// field is "" for what the kernel does not tell.
func field(name string) string {
	v, err := statusField(name)
	if err != nil {
		return ""
	}
	return v
}

// probe runs the probes in a sandbox of their own.
func probe(ctx context.Context) (map[string]string, error) {
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args[0] = ProbeName
	cmd.SysProcAttr = namespaces()
	// The thread that starts the probe may end before it.
	cmd.SysProcAttr.Pdeathsig = 0
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("run probes: %w: %s", err, strings.TrimSpace(errOut.String()))
	}
	missing := map[string]string{}
	if err := json.Unmarshal(out.Bytes(), &missing); err != nil {
		return nil, fmt.Errorf("run probes: read their result: %w", err)
	}
	return missing, nil
}

// oldest is the kernel with every call that a cluster makes (recursive mount_setattr).
func oldest() (major, minor int) { return 5, 12 }

// judge says what the facts mean; pure.
func judge(f facts) []Problem {
	major, minor := kernelVersion(f.Kernel)
	wantMajor, wantMinor := oldest()
	if major > 0 && (major < wantMajor || major == wantMajor && minor < wantMinor) {
		return []Problem{{
			fmt.Sprintf("Linux %s is too old: a local cluster needs %d.%d or newer", f.Kernel, wantMajor, wantMinor),
			"install a newer kernel with the distribution's tools and restart",
		}}
	}
	if f.Namespaces != nil {
		return []Problem{namespaceProblem(f)}
	}
	var all []Problem
	for _, p := range probes() {
		if why, missing := f.Missing[p.name]; missing {
			all = append(all, Problem{fmt.Sprintf("%s does not work here: %s", p.what, why), p.allow})
		}
	}
	return all
}

func namespaceProblem(f facts) Problem {
	who := "an ordinary user"
	if f.UID == 0 {
		who = "root without all its capabilities"
	}
	refused := errors.Is(f.Namespaces, syscall.EPERM) || errors.Is(f.Namespaces, syscall.EACCES)
	switch {
	case f.Settings[clone] == "0" && !f.Capable:
		return Problem{"user namespaces are switched off for " + who + " (kernel.unprivileged_userns_clone = 0)", "sudo sysctl -w kernel.unprivileged_userns_clone=1"}
	case f.Settings[most] == "0" && !f.Capable:
		return Problem{"the machine allows no user namespaces (user.max_user_namespaces = 0)", "sudo sysctl -w user.max_user_namespaces=15000"}
	case f.Settings[mostNet] == "0":
		return Problem{"the machine allows no network namespaces (user.max_net_namespaces = 0)", "sudo sysctl -w user.max_net_namespaces=15000"}
	case f.Settings[apparmor] == "1" && !f.Capable:
		return Problem{"AppArmor keeps ordinary programs from using user namespaces (kernel.apparmor_restrict_unprivileged_userns = 1)", "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or run it as root"}
	case refused && f.Container && f.UID == 0:
		return Problem{"this container's root has no capability CAP_SYS_ADMIN and CAP_NET_ADMIN", "start the container with: docker run --privileged …"}
	case refused && (f.Seccomp || f.Container):
		return Problem{"this container forbids making namespaces (seccomp)", "start the container with: docker run --privileged …, or at least --security-opt seccomp=unconfined --security-opt systempaths=unconfined"}
	case errors.Is(f.Namespaces, syscall.ENOSPC):
		return Problem{"the limit of namespaces is used up: " + f.Namespaces.Error(), "sudo sysctl -w user.max_user_namespaces=15000 user.max_net_namespaces=15000"}
	case errors.Is(f.Namespaces, syscall.EINVAL):
		return Problem{"the kernel was built without namespaces of one of the kinds user, mount, network, PID, UTS, IPC", "use the distribution's own kernel"}
	}
	return Problem{"namespaces cannot be made: " + f.Namespaces.Error(), "run it as root, or on a machine that lets users make namespaces (unshare -Urnmp --fork true must succeed)"}
}

// kernelVersion reads "6.1.0-18-amd64"; 0 if it cannot.
func kernelVersion(release string) (major, minor int) {
	parts := strings.FieldsFunc(release, func(r rune) bool { return r < '0' || r > '9' })
	if len(parts) < 2 {
		return 0, 0
	}
	major, err1 := strconv.Atoi(parts[0])
	minor, err2 := strconv.Atoi(parts[1])
	if err1 != nil || err2 != nil {
		return 0, 0
	}
	return major, minor
}
