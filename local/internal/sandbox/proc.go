package sandbox

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// zombies lists the dead children of a process that nobody has waited for.
func zombies(parent int) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil // without /proc there is nothing to know
	}
	var all []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // ended meanwhile
		}
		if state, ppid, ok := parseStat(string(b)); ok && state == "Z" && ppid == parent {
			all = append(all, pid)
		}
	}
	return all
}

// parseStat reads the state and the parent of a line of /proc/<pid>/stat. The name before may hold anything.
func parseStat(line string) (state string, ppid int, ok bool) {
	i := strings.LastIndexByte(line, ')')
	if i < 0 {
		return "", 0, false
	}
	fields := strings.Fields(line[i+1:])
	if len(fields) < 2 {
		return "", 0, false
	}
	ppid, err := strconv.Atoi(fields[1])
	return fields[0], ppid, err == nil
}

// wantedCaps are the capabilities with which root needs no user namespace.
const wantedCaps = 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_NET_RAW | 1<<unix.CAP_SYS_CHROOT

// capabilities are those in force for this process.
func capabilities() (uint64, error) {
	v, err := statusField("CapEff")
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(v, 16, 64)
}

// statusField is one line of /proc/self/status.
func statusField(name string) (string, error) {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return "", err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if v, ok := strings.CutPrefix(s.Text(), name+":"); ok {
			return strings.TrimSpace(v), nil
		}
	}
	return "", fmt.Errorf("/proc/self/status has no %s", name)
}
