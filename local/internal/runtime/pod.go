package runtime

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/local/internal/network"
)

// PodConfig says what a pod is.
type PodConfig struct {
	Node                 *network.Node
	Namespace, Name, UID string
	Hostname             string
	// HostNetwork pods share the node's network namespace.
	HostNetwork bool
	// ResolvConf is the pod's /etc/resolv.conf.
	ResolvConf string
	// Hosts are further lines of /etc/hosts.
	Hosts []string
}

// Pod is a network namespace with containers in it.
type Pod struct {
	ID    string // as runtimes name sandboxes: 64 hexadecimal digits
	conf  PodConfig
	r     *Runtime
	ns    *netns.Namespace
	taken []netip.Addr // from the node's IPAM
	addrs []netip.Addr // as the plugins gave them

	mu         sync.Mutex // guards below
	containers []*Container
	closed     bool
}

// RunPod makes a pod's network. Nothing runs in it before every plugin of the node has agreed.
func (r *Runtime) RunPod(ctx context.Context, c PodConfig) (*Pod, error) {
	var id [32]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, err
	}
	p := &Pod{ID: hex.EncodeToString(id[:]), conf: c, r: r}
	if err := os.MkdirAll(p.dir(), 0o700); err != nil {
		return nil, fmt.Errorf("make the pod's directory: %w", err)
	}
	if c.HostNetwork {
		p.ns, p.addrs = c.Node.NS, c.Node.Addrs
		return p, nil
	}
	if err := p.network(ctx); err != nil {
		return nil, errors.Join(err, p.release())
	}
	return p, nil
}

func (p *Pod) network(ctx context.Context) (err error) {
	if p.taken, err = p.conf.Node.IPAM().Take(); err != nil {
		return err
	}
	if p.ns, err = netns.New(); err != nil {
		return err
	}
	if err = p.ns.Mount(p.nsPath()); err != nil {
		return err
	}
	p.addrs, err = p.r.attach(ctx, p)
	return err
}

// nsName is the name containerd would give.
func (p *Pod) nsName() string { return "cni-" + p.ID[:8] + "-" + p.ID[8:16] }

func (p *Pod) nsPath() string {
	return filepath.Join(p.r.nodeDir(p.conf.Node), "run/netns", p.nsName())
}

// dir holds the pod's volumes.
func (p *Pod) dir() string { return p.r.PodDir(p.conf.UID) }

// Dir is the pod's directory, for its volumes; it goes with the pod.
func (p *Pod) Dir() string { return p.dir() }

// Addrs are the pod's addresses.
func (p *Pod) Addrs() []netip.Addr { return slices.Clone(p.addrs) }

// Config is what the pod was made of.
func (p *Pod) Config() PodConfig { return p.conf }

// NS is the pod's network namespace.
func (p *Pod) NS() *netns.Namespace { return p.ns }

// Stop ends every container, each within grace, and takes the pod down. The pod is gone even if an error is returned.
func (p *Pod) Stop(ctx context.Context, grace time.Duration) error {
	p.mu.Lock()
	p.closed = true
	all := slices.Clone(p.containers)
	p.mu.Unlock()
	var wg sync.WaitGroup
	for _, c := range all {
		wg.Go(func() { c.Stop(ctx, grace) })
	}
	wg.Wait()
	if p.conf.HostNetwork {
		return p.remove()
	}
	return errors.Join(p.r.detach(context.WithoutCancel(ctx), p), p.release(), p.remove())
}

// release gives up what network took.
func (p *Pod) release() error {
	errs := []error{netns.Unmount(p.nsPath())}
	if p.ns != nil {
		errs = append(errs, p.ns.Close())
	}
	p.conf.Node.IPAM().Give(p.taken)
	return errors.Join(errs...)
}

func (p *Pod) remove() error {
	if err := os.RemoveAll(p.dir()); err != nil {
		return fmt.Errorf("remove the pod's directory: %w", err)
	}
	return nil
}

// etc are the files of /etc that are the pod's.
func (p *Pod) etc() map[string]string {
	var hosts strings.Builder
	hosts.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	for _, a := range p.addrs {
		fmt.Fprintf(&hosts, "%s\t%s\n", a, p.conf.Hostname)
	}
	for _, line := range p.conf.Hosts {
		hosts.WriteString(line + "\n")
	}
	return map[string]string{
		"/etc/hosts": hosts.String(), "/etc/hostname": p.conf.Hostname + "\n", "/etc/resolv.conf": p.conf.ResolvConf,
	}
}

// PodDir is the directory of a pod by its uid.
func (r *Runtime) PodDir(uid string) string { return filepath.Join(r.conf.State, "pods", uid) }
