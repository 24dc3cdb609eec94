// Package memory gives memory back that a program needed only to start.
package memory

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Free collects garbage, gives free memory back, and unmaps the pages of the program's own file. The kernel maps 64 KiB
// around each page that is touched, so that after the start the whole file is resident, most of it code that ran once.
// What is used again is mapped again from the page cache, by a minor fault of about a microsecond.
func Free() error {
	debug.FreeOSMemory()
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("free the program's pages: %w", err)
	}
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return fmt.Errorf("free the program's pages: %w", err)
	}
	defer f.Close()
	var errs []error
	for s := bufio.NewScanner(f); s.Scan(); {
		from, to, ok := readOnly(s.Text(), exe)
		if !ok {
			continue
		}
		if _, _, e := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED); e != 0 {
			errs = append(errs, fmt.Errorf("free the program's pages: %w", e))
		}
	}
	return errors.Join(errs...)
}

// readOnly reads a line of proc_pid_maps(5) and tells whether it is a part of a file that nobody can have written to:
// such pages are the file's, and come back as they were.
func readOnly(line, file string) (from, to uintptr, ok bool) {
	w := strings.Fields(line)
	if len(w) < 6 || strings.Join(w[5:], " ") != file || !strings.HasPrefix(w[1], "r-") || !strings.HasSuffix(w[1], "p") {
		return 0, 0, false
	}
	a, b, ok := strings.Cut(w[0], "-")
	start, err1 := strconv.ParseUint(a, 16, 64)
	end, err2 := strconv.ParseUint(b, 16, 64)
	return uintptr(start), uintptr(end), ok && err1 == nil && err2 == nil && start < end
}
