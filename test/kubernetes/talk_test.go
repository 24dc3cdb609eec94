package kubernetes

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/samples/apps/load"
)

// process is a program in a pod that the test talks to.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	err strings.Builder
}

func (s *stage) start(t *testing.T, ns, pod string, args ...string) *process {
	t.Helper()
	return s.command(t, append([]string{"exec", "-i", "-n", ns, pod, "--"}, args...)...)
}

// command starts kubectl.
func (s *stage) command(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{cmd: s.Command(t.Context(), args...)}
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewReader(out)
	p.cmd.Stderr = &p.err
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.in.Close()
		if p.cmd.ProcessState == nil {
			_ = p.cmd.Process.Kill()
			_ = p.cmd.Wait()
		}
	})
	return p
}

// talk opens a connection from a pod, which lives until the test ends it.
func (s *stage) talk(t *testing.T, ns, pod, host, port string) *process {
	t.Helper()
	return s.start(t, ns, pod, "nc", host, port)
}

// say sends a line and expects it back.
func (p *process) say(t *testing.T, line string) {
	t.Helper()
	if _, err := io.WriteString(p.in, line+"\n"); err != nil {
		t.Fatalf("say %q: %v\n%s", line, err, &p.err)
	}
	p.hear(t, line)
}

// hear expects a line.
func (p *process) hear(t *testing.T, line string) {
	t.Helper()
	if got, err := p.read(); err != nil || got != line {
		t.Fatalf("heard %q, %v; want %q\n%s", got, err, line, &p.err)
	}
}

func (p *process) read() (string, error) {
	type heard struct {
		line string
		err  error
	}
	c := make(chan heard, 1)
	go func() {
		line, err := p.out.ReadString('\n')
		c <- heard{strings.TrimSuffix(line, "\n"), err}
	}()
	select {
	case h := <-c:
		return h.line, h.err
	case <-time.After(patience):
		return "", errors.New("nothing in time")
	}
}

// ends waits until the other end has ended the connection.
func (p *process) ends(t *testing.T) {
	t.Helper()
	if line, err := p.read(); !errors.Is(err, io.EOF) {
		t.Errorf("the connection goes on: heard %q, %v", line, err)
	}
}

// inMesh tells whether a proxy listens in a pod's network.
func (s *stage) inMesh(t *testing.T, ns, pod string) bool {
	t.Helper()
	out, err := s.Try("exec", "-n", ns, pod, "--", "nc", "-z", "-w", "20", "127.0.0.1", "15008")
	if err == nil || strings.Contains(out, "reset by peer") { // the proxy takes nothing from the pod itself
		return true
	}
	if !strings.Contains(out, "refused") {
		t.Fatalf("ask port 15008 of %s/%s: %s", ns, pod, out)
	}
	return false
}

// containers are the identifiers of all containers of a namespace's pods that have one, in order of their start.
func (s *stage) containers(t *testing.T, ns string) string {
	t.Helper()
	return s.Kubectl(t, "get", "pods", "-n", ns, "--sort-by=.metadata.creationTimestamp", "-o", "jsonpath={.items[*].status.containerStatuses[*].containerID}")
}

// offered is a load that goes on.
type offered struct{ *process }

// report is what became of it.
type report struct{ load.Report }

func (s *stage) offer(t *testing.T, ns, pod, to string, flags ...string) offered {
	t.Helper()
	return offered{s.start(t, ns, pod, append(append([]string{"ambit-sample", "load", "offer"}, flags...), to)...)}
}

// end stops the load.
func (o offered) end(t *testing.T) report {
	t.Helper()
	o.in.Close()
	return o.wait(t)
}

// wait waits for the end of a load of so many connections.
func (o offered) wait(t *testing.T) (r report) {
	t.Helper()
	out, err := io.ReadAll(o.out)
	if err := errors.Join(err, o.cmd.Wait()); err != nil {
		t.Fatalf("load: %v\n%s%s", err, out, &o.err)
	}
	if err := json.Unmarshal(out, &r.Report); err != nil {
		t.Fatalf("load says %q: %v", out, err)
	}
	return r
}

// without holds that no new connection failed.
func (r report) without(t *testing.T) {
	t.Helper()
	if r.Tried == 0 || r.Whole != r.Tried {
		t.Errorf("of %d connections %d were whole: %v", r.Tried, r.Whole, r.Failed)
	}
}
