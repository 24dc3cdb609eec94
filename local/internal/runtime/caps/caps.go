// Package caps names the kernel's capabilities and takes them from processes.
package caps

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Set is a set of capabilities; the zero value is none.
type Set uint64

// All are every capability that the kernel has or may get.
const All = ^Set(0)

// Default is what a container has unless it says otherwise: what container runtimes give, less what could reach beyond
// the pod on a machine whose files the pod sees.
const Default = Set(1<<unix.CAP_CHOWN | 1<<unix.CAP_FOWNER | 1<<unix.CAP_FSETID | 1<<unix.CAP_KILL |
	1<<unix.CAP_NET_BIND_SERVICE | 1<<unix.CAP_NET_RAW | 1<<unix.CAP_SETGID | 1<<unix.CAP_SETUID | 1<<unix.CAP_SYS_CHROOT)

// Pod is what any container may ask for: beyond Default, to administer the pod's own network.
const Pod = Default | 1<<unix.CAP_NET_ADMIN

// names are the kernel's, by number.
func names() []string {
	return []string{
		"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE",
		"NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT",
		"SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE",
		"AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ",
		"PERFMON", "BPF", "CHECKPOINT_RESTORE",
	}
}

// Parse is the set of one name as manifests write it: NET_ADMIN, CAP_NET_ADMIN or ALL.
func Parse(name string) (Set, error) {
	word := strings.TrimPrefix(strings.ToUpper(name), "CAP_")
	if word == "ALL" {
		return All, nil
	}
	i := slices.Index(names(), word)
	if i < 0 {
		return 0, fmt.Errorf("unknown capability %q", name)
	}
	return 1 << i, nil
}

// Has tells whether all of other are in the set.
func (s Set) Has(other Set) bool { return s&other == other }

// Confine takes every other capability from what the calling thread starts or becomes. It cannot be undone; the caller
// holds the thread and does not give it back.
func (s Set) Confine() error {
	for c := range uintptr(64) {
		if s.Has(1 << c) {
			continue
		}
		on, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0)
		if err != nil {
			return nil // the kernel has no capability of this number, nor any after
		}
		if on == 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	return nil
}
