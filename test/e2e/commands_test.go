package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// commands are what a script can say beside testscript's own words.
func commands(started *sync.Map) map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		"local":      localCommand,
		"status":     statusCommand,
		"eventually": eventuallyCommand,
		"keep":       keepCommand,
		"browse":     browseCommand,
		"kubeexec":   kubeexecCommand,
		"begin":      func(ts *testscript.TestScript, neg bool, args []string) { beginCommand(ts, neg, args, started) },
		"signal":     func(ts *testscript.TestScript, neg bool, args []string) { signalCommand(ts, neg, args, started) },
		"ended":      func(ts *testscript.TestScript, neg bool, args []string) { endedCommand(ts, neg, args, started) },
		"gone":       goneCommand,
		"dead":       deadCommand,
		"remember":   rememberCommand,
	}
}

// argv turns the short forms `ambit ...` and `local ...` into the program and its arguments.
func argv(ts *testscript.TestScript, args []string) []string {
	switch args[0] {
	case "local":
		return append([]string{ts.Getenv("AMBIT"), "local", "--state", ts.Getenv("STATE")}, args[1:]...)
	case "ambit":
		return append([]string{ts.Getenv("AMBIT")}, args[1:]...)
	}
	return args
}

// localCommand is `ambit local` with the script's cluster.
func localCommand(ts *testscript.TestScript, neg bool, args []string) {
	words := argv(ts, append([]string{"local"}, args...))
	err := ts.Exec(words[0], words[1:]...)
	switch {
	case err == nil && neg:
		ts.Fatalf("unexpected success")
	case err != nil && !neg:
		ts.Fatalf("%v", err)
	}
}

// statusCommand wants an exit status: status 7 local exec deploy/sleep -- curl ...
func statusCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status NUMBER[|NUMBER] COMMAND...")
	}
	words := argv(ts, args[1:])
	got := exitCode(ts.Exec(words[0], words[1:]...))
	if !slices.Contains(strings.Split(args[0], "|"), strconv.Itoa(got)) {
		ts.Fatalf("exit status %d, want %s", got, args[0])
	}
}

func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return -1
}

// eventuallyCommand repeats a command until it succeeds (with !: fails) and its output matches: eventually 5s [!] [/RE/] COMMAND...
func eventuallyCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: eventually DURATION [!] [/RE/] COMMAND...")
	}
	limit, err := time.ParseDuration(args[0])
	ts.Check(err)
	check, words := expectation(ts, args[1:])
	deadline := time.Now().Add(limit)
	for {
		out, err := quietly(ts, words)
		why := check(out, err)
		if why == "" {
			fmt.Fprint(ts.Stdout(), out)
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("after %v: %s\n%s", limit, why, out[max(0, len(out)-2000):])
		}
		time.Sleep(100 * time.Millisecond) // between two looks at another process
	}
}

// keepCommand repeats a command that must hold each time: keep 2s [!] [/RE/] COMMAND...
func keepCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: keep DURATION [!] [/RE/] COMMAND...")
	}
	limit, err := time.ParseDuration(args[0])
	ts.Check(err)
	check, words := expectation(ts, args[1:])
	for start := time.Now(); time.Since(start) < limit; {
		out, err := quietly(ts, words)
		if why := check(out, err); why != "" {
			ts.Fatalf("after %v: %s\n%s", time.Since(start), why, out[max(0, len(out)-2000):])
		}
	}
}

// expectation reads [!] [/RE/] COMMAND... and says what is wrong with an outcome.
func expectation(ts *testscript.TestScript, args []string) (check func(out string, err error) string, words []string) {
	fail := args[0] == "!"
	if fail {
		args = args[1:]
	}
	var want *regexp.Regexp
	if p := args[0]; len(p) > 1 && p[0] == '/' && p[len(p)-1] == '/' {
		var err error
		want, err = regexp.Compile("(?m)" + p[1:len(p)-1])
		ts.Check(err)
		args = args[1:]
	}
	return func(out string, err error) string {
		switch {
		case err != nil && !fail:
			return err.Error()
		case err == nil && fail:
			return "unexpected success"
		case want != nil && !want.MatchString(out):
			return "no match for " + want.String()
		}
		return ""
	}, argv(ts, args)
}

func quietly(ts *testscript.TestScript, words []string) (string, error) {
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = append(os.Environ(), "PATH="+ts.Getenv("PATH"), "AMBIT="+ts.Getenv("AMBIT"), "STATE="+ts.Getenv("STATE"), "INGRESS="+ts.Getenv("INGRESS"))
	out, err := cmd.CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		ts.Fatalf("%v", err) // it says nothing about the cluster
	}
	return string(out), err
}

// browseCommand asks the ingress gateway as a browser does: browse [-host HOST] STATUS PATH. The page is the command's output.
func browseCommand(ts *testscript.TestScript, neg bool, args []string) {
	host := ""
	if len(args) > 2 && args[0] == "-host" {
		host, args = args[1], args[2:]
	}
	if neg || len(args) != 2 {
		ts.Fatalf("usage: browse [-host HOST] STATUS PATH")
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		got, page, err := browse(ts.Getenv("INGRESS")+args[1], host)
		if err == nil && strconv.Itoa(got) == args[0] {
			fmt.Fprint(ts.Stdout(), page)
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("status %d, want %s (%v)\n%.500s", got, args[0], err, page)
		}
		time.Sleep(100 * time.Millisecond) // configuration takes a moment
	}
}

func browse(url, host string) (int, string, error) {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	req.Host = host
	req.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/140.0")
	req.Header.Set("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, string(b), err
}

// running is what begin started.
type running struct {
	cmd   *exec.Cmd
	lines chan string
	out   strings.Builder
}

// beginCommand starts a program in the background and waits until it writes a line that matches: begin /RE/ COMMAND...
func beginCommand(ts *testscript.TestScript, neg bool, args []string, started *sync.Map) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: begin /RE/ COMMAND...")
	}
	want, err := regexp.Compile(strings.Trim(args[0], "/"))
	ts.Check(err)
	words := argv(ts, args[1:])
	r, w, err := os.Pipe()
	ts.Check(err)
	p := &running{cmd: exec.Command(words[0], words[1:]...), lines: make(chan string)}
	p.cmd.Stdout, p.cmd.Stderr = w, w
	p.cmd.Env = append(os.Environ(), "TMPDIR="+ts.Getenv("TMPDIR"), "AMBIT="+ts.Getenv("AMBIT"), "STATE="+ts.Getenv("STATE"))
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	ts.Check(p.cmd.Start())
	ts.Check(w.Close())
	go func() {
		defer close(p.lines)
		for in := bufio.NewScanner(r); in.Scan(); {
			p.lines <- in.Text()
		}
	}()
	ts.Setenv("PID", strconv.Itoa(p.cmd.Process.Pid))
	started.Store(p.cmd.Process.Pid, p)
	ts.Defer(func() {
		if err := p.cmd.Process.Kill(); err == nil {
			go drain(p)
			p.cmd.Wait() //nolint:errcheck // killed
		}
	})
	timeout := time.After(30 * time.Second)
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				ts.Fatalf("ended before it wrote %s:\n%s", want, p.out.String())
			}
			p.out.WriteString(line + "\n")
			if want.MatchString(line) {
				return
			}
		case <-timeout:
			ts.Fatalf("did not write %s:\n%s", want, p.out.String())
		}
	}
}

func drain(p *running) {
	for line := range p.lines {
		p.out.WriteString(line + "\n")
	}
}

// signalCommand ends what begin started: signal INT|TERM|KILL [STATUS]. Its output becomes the command's.
func signalCommand(ts *testscript.TestScript, neg bool, args []string, started *sync.Map) {
	signals := map[string]syscall.Signal{"INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "KILL": syscall.SIGKILL}
	if neg || len(args) == 0 || signals[args[0]] == 0 {
		ts.Fatalf("usage: signal INT|TERM|KILL [STATUS]")
	}
	pid, err := strconv.Atoi(ts.Getenv("PID"))
	ts.Check(err)
	v, ok := started.Load(pid)
	if !ok {
		ts.Fatalf("nothing was begun")
	}
	p := v.(*running)
	ts.Check(p.cmd.Process.Signal(signals[args[0]]))
	err = p.cmd.Wait()
	drain(p)
	fmt.Fprint(ts.Stdout(), p.out.String())
	if len(args) > 1 && strconv.Itoa(exitCode(err)) != args[1] {
		ts.Fatalf("exit status %d, want %s\n%s", exitCode(err), args[1], p.out.String())
	}
}

// endedCommand wants that what begin started ends by itself: ended DURATION STATUS[|STATUS].
func endedCommand(ts *testscript.TestScript, neg bool, args []string, started *sync.Map) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: ended DURATION STATUS[|STATUS]")
	}
	limit, err := time.ParseDuration(args[0])
	ts.Check(err)
	pid, err := strconv.Atoi(ts.Getenv("PID"))
	ts.Check(err)
	v, ok := started.Load(pid)
	if !ok {
		ts.Fatalf("nothing was begun")
	}
	p := v.(*running)
	late := time.AfterFunc(limit, func() { _ = p.cmd.Process.Kill() })
	drain(p)
	err = p.cmd.Wait()
	if !late.Stop() {
		ts.Fatalf("still running after %v\n%s", limit, p.out.String())
	}
	if got := strconv.Itoa(exitCode(err)); !slices.Contains(strings.Split(args[1], "|"), got) {
		ts.Fatalf("exit status %s, want %s\n%s", got, args[1], p.out.String())
	}
}

// goneCommand wants that nothing of a directory is left: no process and no mount that names it, no file in it.
func goneCommand(ts *testscript.TestScript, neg bool, args []string) {
	deadCommand(ts, neg, args)
	entries, err := os.ReadDir(ts.MkAbs(args[0]))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		ts.Fatalf("%v", err)
	}
	for _, e := range entries {
		ts.Fatalf("left behind: file %s", e.Name())
	}
}

// deadCommand wants that no process and no mount names a directory any more: dead DIRECTORY.
func deadCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: gone|dead DIRECTORY")
	}
	var left []string
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if left = living(ts.MkAbs(args[0])); len(left) == 0 {
			return
		}
	}
	ts.Fatalf("left behind:\n%s", strings.Join(left, "\n"))
}

// living lists processes that name a directory in their arguments or, in whatever namespace, in their mounts.
func living(dir string) []string {
	var left []string
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return []string{err.Error()}
	}
	for _, p := range processes {
		b, err := os.ReadFile(p + "/cmdline")
		if err != nil {
			continue // ended meanwhile
		}
		if line := strings.ReplaceAll(string(b), "\x00", " "); strings.Contains(line, dir) {
			left = append(left, "process "+filepath.Base(p)+" "+line)
		}
		if b, err := os.ReadFile(p + "/mountinfo"); err == nil && strings.Contains(string(b), dir) {
			left = append(left, "mounts of process "+filepath.Base(p))
		}
	}
	return left
}

// rememberCommand keeps what a command prints: remember NAME COMMAND...
func rememberCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: remember NAME COMMAND...")
	}
	out, err := quietly(ts, argv(ts, args[1:]))
	if err != nil {
		ts.Fatalf("%v\n%s", err, out)
	}
	ts.Setenv(args[0], strings.TrimSpace(out))
}
