package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Process is a container's program as this machine's kernel sees it.
type Process struct{ PID int }

// tick is the unit of times in /proc/PID/stat.
const tick = time.Second / 100

// Process finds the program of a pod's container.
func (l *Lab) Process(ctx context.Context, namespace, pod, container string) (Process, error) {
	all, err := l.Processes(ctx)
	if err != nil {
		return Process{}, err
	}
	for _, p := range all {
		if p.Pod == namespace+"/"+pod && p.Container == container {
			return l.outside(p.PID)
		}
	}
	return Process{}, fmt.Errorf("container %s of pod %s/%s does not run", container, namespace, pod)
}

// outside finds the process that has a number inside the cluster: below the process that holds the cluster, the one
// whose second number it is.
func (l *Lab) outside(inside int) (Process, error) {
	text, err := os.ReadFile(filepath.Join(l.dir, "c.pid"))
	if err != nil {
		return Process{}, err
	}
	holder := strings.TrimSpace(string(text))
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return Process{}, err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		spaces := strings.Fields(status(pid, "NSpid"))
		if len(spaces) >= 2 && spaces[1] == strconv.Itoa(inside) && below(e.Name(), holder) {
			return Process{pid}, nil
		}
	}
	return Process{}, fmt.Errorf("process %d of the cluster is not in /proc", inside)
}

// below tells whether a process descends from another.
func below(pid, of string) bool {
	for range 10 {
		if pid == of {
			return true
		}
		n, err := strconv.Atoi(pid)
		if err != nil || n <= 1 {
			return false
		}
		pid = status(n, "PPid")
	}
	return false
}

// status is a line of /proc/PID/status, "" if there is none.
func status(pid int, key string) string {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return ""
	}
	defer f.Close()
	for in := bufio.NewScanner(f); in.Scan(); {
		if v, ok := strings.CutPrefix(in.Text(), key+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// Resident is its resident memory in bytes.
func (p Process) Resident() (int64, error) {
	kib, err := strconv.ParseInt(strings.TrimSuffix(status(p.PID, "VmRSS"), " kB"), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("resident memory of process %d: %w", p.PID, err)
	}
	return kib << 10, nil
}

// CPU is how long it has run, in user and in kernel mode, all its threads together. The scheduler's account is exact to
// the nanosecond but lacks threads that have ended; where they ran longer, the coarser account of the process counts.
func (p Process) CPU() (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	words := strings.Fields(rest)
	if len(words) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat: %q", p.PID, text)
	}
	user, err := strconv.ParseInt(words[11], 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(words[12], 10, 64)
	if err != nil {
		return 0, err
	}
	exact, err := p.threads()
	return max(exact, time.Duration(user+system-1)*tick), err
}

func (p Process) threads() (sum time.Duration, err error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.PID))
	if err != nil {
		return 0, err
	}
	for _, file := range tasks {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // ended meanwhile
		}
		if err != nil {
			return 0, err
		}
		first, _, _ := strings.Cut(string(text), " ")
		ns, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", file, err)
		}
		sum += time.Duration(ns)
	}
	return sum, nil
}
