package sandbox

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
)

func TestPreflightSaysHowToAllowIt(t *testing.T) {
	refused := fmt.Errorf("fork/exec: %w", os.NewSyscallError("clone", syscall.EPERM))
	user := func(name, value string) facts {
		return facts{Kernel: "6.1.0-18-amd64", UID: 1000, Settings: map[string]string{name: value}, Namespaces: refused}
	}
	for _, tc := range []struct {
		name        string
		f           facts
		what, allow string
	}{
		{"an old kernel", facts{Kernel: "5.10.0-28-amd64"}, "5.12 or newer", "install a newer kernel"},
		{"Debian's switch", user(clone, "0"), "unprivileged_userns_clone = 0", "sudo sysctl -w kernel.unprivileged_userns_clone=1"},
		{"no user namespaces", user(most, "0"), "user.max_user_namespaces = 0", "sudo sysctl -w user.max_user_namespaces=15000"},
		{"no network namespaces", user(mostNet, "0"), "user.max_net_namespaces = 0", "sudo sysctl -w user.max_net_namespaces=15000"},
		{"Ubuntu's AppArmor", user(apparmor, "1"), "AppArmor", "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"},
		{"a container's root", facts{Kernel: "6.1", Container: true, Seccomp: true, Namespaces: refused}, "CAP_SYS_ADMIN", "docker run --privileged"},
		{"a container's user", facts{Kernel: "6.1", UID: 1000, Seccomp: true, Namespaces: refused}, "seccomp", "seccomp=unconfined"},
		{"a used-up limit", facts{Kernel: "6.1", UID: 1000, Namespaces: syscall.ENOSPC}, "limit", "max_user_namespaces"},
		{"a kernel without namespaces", facts{Kernel: "6.1", UID: 1000, Namespaces: syscall.EINVAL}, "built without namespaces", "kernel"},
		{"something else", facts{Kernel: "6.1", UID: 1000, Namespaces: errors.New("odd")}, "odd", "run it as root"},
		{"no nftables", facts{Kernel: "6.1", Missing: map[string]string{"nftables": "operation not supported"}}, "nftables does not work here: operation not supported", "sudo modprobe nf_tables"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := judge(tc.f)
			if len(got) != 1 || !strings.Contains(got[0].What, tc.what) || !strings.Contains(got[0].Allow, tc.allow) {
				t.Errorf("judge = %v, want one problem with %q and %q", got, tc.what, tc.allow)
			}
		})
	}
	if got := judge(facts{Kernel: "6.1.0"}); len(got) != 0 {
		t.Errorf("nothing missing, yet %v", got)
	}
}

func TestEachProbeIsNamedOnce(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range probes() {
		if seen[p.name] || p.what == "" || p.allow == "" {
			t.Errorf("probe %q is there twice or says too little", p.name)
		}
		seen[p.name] = true
	}
}

func TestParseStatSurvivesOddNames(t *testing.T) {
	for line, want := range map[string]string{
		"12 (sh) S 1 12": "S 1 true", "12 (a) Z 9) Z 7 12 0": "Z 7 true", "": " 0 false", "12 (sh": " 0 false", "12 (sh) Z x": "Z 0 false",
	} {
		state, ppid, ok := parseStat(line)
		if got := fmt.Sprint(state, " ", ppid, " ", ok); got != want {
			t.Errorf("parseStat(%q) = %s, want %s", line, got, want)
		}
	}
}
