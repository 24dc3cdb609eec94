package cniplugin

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxLogFile is when a log begins anew, keeping one old file: Istio's 10 MB.
	maxLogFile = 10 << 20
	// logTimeout bounds what a log may cost a pod that starts.
	logTimeout = 500 * time.Millisecond
)

// logger collects what one call has to say, for the agent's log and for a file on the node: standard output is the
// runtime's, and the agent may be away. It never fails a call: a full disk must not keep pods from starting.
type logger struct {
	dir   string
	least int // of levels
	lines []string
}

// levels in order of gravity.
func levels() []string { return []string{"debug", "info", "warn", "error"} }

func newLogger(c *Conf) *logger {
	least := slices.Index(levels(), c.LogLevel)
	if least < 0 {
		least = slices.Index(levels(), "info")
	}
	return &logger{dir: c.RunDir, least: least}
}

// log notes a line with names and values.
func (l *logger) log(level, msg string, attrs ...string) {
	if slices.Index(levels(), level) < l.least {
		return
	}
	line := map[string]string{"level": level, "time": time.Now().UTC().Format(time.RFC3339Nano), "msg": msg}
	for i := 0; i+1 < len(attrs); i += 2 {
		line[attrs[i]] = attrs[i+1]
	}
	b, err := json.Marshal(line)
	if err == nil { // strings can always be written
		l.lines = append(l.lines, string(b))
	}
}

// close brings the lines away.
func (l *logger) close() {
	if len(l.lines) == 0 {
		return
	}
	_ = l.file()
	if body, err := json.Marshal(l.lines); err == nil {
		_ = post(filepath.Join(l.dir, LogSocket), "/log", body, time.Now().Add(logTimeout))
	}
}

// file appends to the node's own log. One write is whole in the file, whoever else writes.
func (l *logger) file() error {
	path := filepath.Join(l.dir, LogFile)
	f, err := openLog(path)
	if err != nil {
		return err
	}
	defer func() { f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%s is no file", path)
	}
	if st.Size() >= maxLogFile && unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		// Of calls at the same moment, one begins a new file.
		if now, err := os.Lstat(path); err == nil && os.SameFile(now, st) {
			if err := os.Rename(path, path+".1"); err != nil {
				return err
			}
			f.Close()
			if f, err = openLog(path); err != nil {
				return err
			}
		}
	}
	_, err = f.WriteString(strings.Join(l.lines, "\n") + "\n")
	return err
}

func openLog(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
}
