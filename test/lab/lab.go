// Package lab runs a local cluster for a test or a measurement, in which some nodes may carry another ztunnel than ours.
package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/ambit-mesh/ambit/local/client"
)

// BinDir is where every container of a local cluster sees the lab's programs.
const BinDir = "/ambit/bin"

// Load is the program of package load, as a pod calls it.
const Load = BinDir + "/load"

// Config of a lab.
type Config struct {
	// Nodes of the cluster, the first of them the control plane.
	Nodes int
	// Bin is the directory of ambit's binaries, as `make build` makes it. Default: they are built.
	Bin string
	// Foreign is the file of another ztunnel, Istio's, and On the nodes that carry it. Default: none do.
	Foreign string
	On      []string
	// Log gets a line for each step. Default: none.
	Log func(format string, a ...any)
}

// Lab is a running cluster with its mesh.
type Lab struct {
	*client.Client

	dir   string // everything of it
	ambit string
	log   func(string, ...any)
}

// Start builds what is needed, starts the cluster and installs the mesh.
func Start(ctx context.Context, c Config) (*Lab, error) {
	if c.Log == nil {
		c.Log = func(string, ...any) {}
	}
	dir, err := os.MkdirTemp("", "lab-") // short: sockets are below it
	if err != nil {
		return nil, err
	}
	l := &Lab{Client: client.New(filepath.Join(dir, "c")), dir: dir, ambit: filepath.Join(dir, "bin", "ambit"), log: c.Log}
	if err := l.start(ctx, c); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Lab) start(ctx context.Context, c Config) error {
	if err := l.programs(ctx, c); err != nil {
		return err
	}
	up := []string{"up", "--nodes", strconv.Itoa(c.Nodes), "--ingress-port", "0"}
	if err := l.local(ctx, nil, up...); err != nil {
		return err
	}
	l.log("%d nodes run ambit", c.Nodes)
	if c.Foreign == "" {
		return nil
	}
	return l.replace(ctx, c.On)
}

// programs makes the directory that containers see: ambit's binaries, load, and the foreign ztunnel.
func (l *Lab) programs(ctx context.Context, c Config) error {
	bin := filepath.Dir(l.ambit)
	if err := os.Mkdir(bin, 0o755); err != nil {
		return err
	}
	packages := []string{"github.com/ambit-mesh/ambit/test/lab/load"}
	if c.Bin == "" {
		packages = append(packages, "github.com/ambit-mesh/ambit/cmd/...")
	} else if err := copyAll(c.Bin, bin); err != nil {
		return err
	}
	build := exec.CommandContext(ctx, "go", append([]string{"build", "-tags", "grpcnotrace", "-trimpath", "-ldflags", "-s -w", "-o", bin + "/"}, packages...)...)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the lab's programs: %w\n%s", err, out)
	}
	if c.Foreign == "" {
		return nil
	}
	return copyFile(c.Foreign, filepath.Join(bin, foreign))
}

func copyAll(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		if err := copyFile(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// Close ends the cluster and removes all of it.
func (l *Lab) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var down error
	if _, err := os.Stat(filepath.Join(l.dir, "c.pid")); err == nil {
		down = l.local(ctx, nil, "down")
	}
	return errors.Join(down, os.RemoveAll(l.dir))
}

// Ambit runs ambit with arguments and gives what it says on standard output.
func (l *Lab) Ambit(ctx context.Context, args ...string) (string, error) {
	var out, errout bytes.Buffer
	err := l.command(ctx, &out, &errout, args...)
	return out.String(), err
}

func (l *Lab) command(ctx context.Context, out, errout *bytes.Buffer, args ...string) error {
	c := exec.CommandContext(ctx, l.ambit, args...)
	c.Stdout, c.Stderr = out, errout
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = 10 * time.Second
	if err := c.Run(); err != nil {
		return fmt.Errorf("ambit %v: %w\n%s%s", args, err, out, errout)
	}
	return nil
}

// State is the option that names this cluster to ambit.
func (l *Lab) State() string { return "--state=" + filepath.Join(l.dir, "c") }

// local runs `ambit local`.
func (l *Lab) local(ctx context.Context, out *bytes.Buffer, args ...string) error {
	if out == nil {
		out = new(bytes.Buffer)
	}
	return l.command(ctx, out, new(bytes.Buffer), append([]string{"local", l.State()}, args...)...)
}

// Local runs `ambit local` and gives what it says.
func (l *Lab) Local(ctx context.Context, args ...string) (string, error) {
	var out bytes.Buffer
	err := l.local(ctx, &out, args...)
	return out.String(), err
}
