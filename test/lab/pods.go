package lab

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/local/client"
)

// Pod is one of the lab's applications.
type Pod struct {
	Namespace, Name, Node string
	// Argv are its containers' programs; the first is the application. Default: the server of load.
	Argv [][]string
	// Labels beside app, which is its name.
	Labels map[string]string
}

// YAML of a pod with an account and a service of its own name, port 9000.
func (p Pod) YAML() string {
	argv := p.Argv
	if len(argv) == 0 {
		argv = [][]string{{Load, "serve"}}
	}
	var b strings.Builder
	fmt.Fprintf(&b, `apiVersion: v1
kind: ServiceAccount
metadata: {name: %[1]s, namespace: %[2]s}
---
apiVersion: v1
kind: Service
metadata: {name: %[1]s, namespace: %[2]s}
spec: {selector: {app: %[1]s}, ports: [{name: tcp, port: 9000}]}
---
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, namespace: %[2]s, labels: {app: %[1]s`, p.Name, p.Namespace)
	for k, v := range p.Labels {
		fmt.Fprintf(&b, ", %s: %q", k, v)
	}
	fmt.Fprintf(&b, "}}\nspec:\n  serviceAccountName: %s\n  nodeSelector: {kubernetes.io/hostname: %s}\n  terminationGracePeriodSeconds: 1\n  containers:\n", p.Name, p.Node)
	for i, a := range argv {
		words, _ := json.Marshal(a) //nolint:errcheck // strings
		fmt.Fprintf(&b, "    - {name: c%d, image: lab, command: %s}\n", i, words)
	}
	return b.String() + "---\n"
}

// Namespace as YAML, in the mesh or not.
func Namespace(name string, ambient bool) string {
	mode := "none"
	if ambient {
		mode = "ambient"
	}
	return fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata: {name: %s, labels: {istio.io/dataplane-mode: %s}}\n---\n", name, mode)
}

// Apply applies YAML.
func (l *Lab) Apply(ctx context.Context, yaml string) error {
	_, err := l.Client.Apply(ctx, "lab", "default", false, []byte(yaml))
	return err
}

// Start applies pods and waits until they are ready.
func (l *Lab) Start(ctx context.Context, pods ...Pod) error {
	var all strings.Builder
	for _, p := range pods {
		all.WriteString(p.YAML())
	}
	if err := l.Apply(ctx, all.String()); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for _, p := range pods {
		if err := l.Until(ctx, kind("pods"), p.Namespace, p.Name, client.RolledOut); err != nil {
			return err
		}
	}
	return nil
}

// Exec runs a program in a pod's first container and reads the JSON that it says into v, unless v is nil.
func (l *Lab) Exec(ctx context.Context, pod Pod, v any, argv ...string) error {
	r, err := l.Begin(ctx, pod, argv...)
	if err != nil {
		return err
	}
	out, err := io.ReadAll(r.out)
	if end := r.End(); err == nil {
		err = end
	}
	if err != nil {
		return fmt.Errorf("%s in %s: %w", strings.Join(argv, " "), pod.Name, err)
	}
	if v == nil {
		return nil
	}
	if err := json.Unmarshal(out, v); err != nil {
		return fmt.Errorf("%s in %s: %w in %q", strings.Join(argv, " "), pod.Name, err, out)
	}
	return nil
}

// Running is a program in a pod.
type Running struct {
	out   *bufio.Reader
	in    *os.File
	files []*os.File
	stop  context.CancelFunc
	ended chan error
	said  bytes.Buffer // its standard error, complete once it has ended
}

// Begin starts a program in a pod's first container.
func (l *Lab) Begin(ctx context.Context, pod Pod, argv ...string) (*Running, error) {
	var pipes [6]*os.File // read and write end of input, output and error
	for i := 0; i < len(pipes); i += 2 {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		pipes[i], pipes[i+1] = r, w
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &Running{out: bufio.NewReader(pipes[2]), in: pipes[1], files: []*os.File{pipes[1], pipes[2], pipes[4]}, stop: cancel, ended: make(chan error, 1)}
	said := make(chan struct{})
	go func() {
		defer close(said)
		io.Copy(&r.said, pipes[4]) //nolint:errcheck // a pipe of our own
	}()
	go func() {
		code, err := l.Client.Exec(ctx, client.ExecRequest{Namespace: pod.Namespace, Pod: pod.Name, Argv: argv}, pipes[0], pipes[3], pipes[5])
		for _, i := range []int{0, 3, 5} {
			pipes[i].Close()
		}
		<-said
		if err == nil && code != 0 {
			err = fmt.Errorf("exit status %d: %s", code, r.said.String())
		}
		r.ended <- err
	}()
	return r, nil
}

// Next reads the next line of JSON that it says.
func (r *Running) Next(v any) error {
	line, err := r.out.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("it says no more: %w", err)
	}
	return json.Unmarshal(line, v)
}

// End closes its input and waits for its end.
func (r *Running) End() error {
	r.in.Close()
	return r.close(<-r.ended)
}

// Stop kills it.
func (r *Running) Stop() {
	r.stop()
	_ = r.close(<-r.ended) // killed by us
}

func (r *Running) close(err error) error {
	r.stop()
	for _, f := range r.files {
		f.Close()
	}
	return err
}

// Lines of a pod's log that contain all of the words, oldest first.
func (l *Lab) Lines(ctx context.Context, namespace, pod string, words ...string) ([]string, error) {
	log, err := l.Logs(ctx, namespace, pod, client.LogOptions{Tail: -1})
	if err != nil {
		return nil, err
	}
	defer log.Close()
	b, err := io.ReadAll(log)
	if err != nil {
		return nil, err
	}
	var found []string
next:
	for line := range strings.Lines(string(b)) {
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue next
			}
		}
		found = append(found, strings.TrimRight(line, "\n"))
	}
	return found, nil
}
