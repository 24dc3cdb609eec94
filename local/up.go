package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/local/client"
	"github.com/ambit-mesh/ambit/local/internal/network"
	"github.com/ambit-mesh/ambit/local/internal/sandbox"
)

// What the machine may reach inside.
const (
	ingressTarget    = "ingress"
	ingressNamespace = "istio-system"
	ingressService   = "istio-ingressgateway"
	ingressFile      = "ingress.url"
)

// Config of a cluster.
type Config struct {
	// State is the directory that holds the cluster, absolute. See DefaultState.
	State string
	// Keep leaves the state when the cluster ends. Default: it is removed.
	Keep bool
	// Nodes is how many there are, the first of them the control plane. Default 3.
	Nodes int
	// IPFamily is ipv4, ipv6 or dual. Default ipv4.
	IPFamily string
	// Bin is the directory of the mesh's binaries.
	Bin string
	// IngressPort on 127.0.0.1 leads to the ingress gateway. Default 8080 if it is free, else any.
	IngressPort int
	Log         *slog.Logger
}

// Cluster is a running cluster, as the process that started it holds it.
type Cluster struct {
	*client.Client
	// Ingress is the ingress gateway's address on this machine.
	Ingress string

	box     *sandbox.Sandbox
	forward context.CancelFunc
	ended   chan error
}

// Problem is why this machine cannot run a cluster, and what allows it.
type Problem = sandbox.Problem

// Preflight tries out what a cluster needs of the machine, in throw-away namespaces. None means that it will work.
func Preflight(ctx context.Context) []Problem { return sandbox.Preflight(ctx) }

// programs are the binaries that the mesh's pods run.
func programs() []string {
	return []string{"ambit", "ambitd", "ztunnel", "waypoint", "ambit-node", "ambit-cni", "ambit-sample"}
}

// startTimeout bounds how long the nodes may take to come up.
const startTimeout = 30 * time.Second

// Up starts a cluster and waits until its nodes are ready. It lives until Close, or this process's end.
func Up(ctx context.Context, c Config) (*Cluster, error) {
	if c.Nodes == 0 {
		c.Nodes = 3
	}
	if c.Nodes < 1 || c.Nodes > 20 {
		return nil, fmt.Errorf("%d nodes: a local cluster has 1 to 20", c.Nodes)
	}
	family, err := network.ParseFamily(c.IPFamily)
	if err != nil {
		return nil, err
	}
	for _, p := range programs() {
		if _, err := os.Stat(filepath.Join(c.Bin, p)); err != nil {
			return nil, fmt.Errorf("the program %s is missing in %s: build all of them with `make build`", p, c.Bin)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find ambit's own file: %w", err)
	}
	args, err := json.Marshal(inside{State: c.State, Hidden: hiddenDirs(), Bin: c.Bin, Self: self, Nodes: c.Nodes, Family: family})
	if err != nil {
		return nil, err
	}
	box, err := sandbox.Start(sandbox.Config{State: c.State, Keep: c.Keep, Args: []string{string(args)}, Log: c.Log})
	if err != nil {
		return nil, err
	}
	cl := &Cluster{Client: client.New(c.State), box: box, ended: make(chan error, 1)}
	if err := cl.open(ctx, c); err != nil {
		return nil, errors.Join(err, cl.Close())
	}
	return cl, nil
}

// open waits for the inside and connects the machine to its ingress gateway.
func (cl *Cluster) open(ctx context.Context, c Config) error {
	waiting, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := cl.box.Wait(waiting); err != nil {
		return fmt.Errorf("%w%s", err, lastWords(c.State))
	}
	l, err := listenIngress(c.IngressPort)
	if err != nil {
		return err
	}
	cl.Ingress = "http://" + l.Addr().String()
	if err := os.WriteFile(filepath.Join(c.State, ingressFile), []byte(cl.Ingress), 0o600); err != nil {
		return errors.Join(err, l.Close())
	}
	forwarding, stop := context.WithCancel(context.Background())
	cl.forward = stop
	go func() { cl.ended <- cl.box.Forward(forwarding, l, ingressTarget) }()
	return nil
}

// lastWords is the end of what the inside wrote before it failed.
func lastWords(state string) string {
	b, err := os.ReadFile(filepath.Join(state, logFile))
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return "; its last words:\n  " + strings.Join(lines[max(0, len(lines)-8):], "\n  ")
}

func listenIngress(port int) (net.Listener, error) {
	if port == 0 {
		if l, err := net.Listen("tcp", "127.0.0.1:8080"); err == nil {
			return l, nil
		}
	}
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, fmt.Errorf("the ingress gateway's address on this machine: %w", err)
	}
	return l, nil
}

// Done is closed when the cluster has ended, by Close or by itself.
func (cl *Cluster) Done() <-chan struct{} { return cl.box.Done() }

// Close ends the cluster: no process, namespace, interface, rule or mount of it is left, and unless it is kept no file.
func (cl *Cluster) Close() error {
	if cl.forward != nil {
		cl.forward()
		_ = <-cl.ended // cancelled by us
	}
	return cl.box.Close()
}
