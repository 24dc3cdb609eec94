// Package runtime runs pods on the nodes of a local cluster, as a container runtime does on a machine.
package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/local/internal/network"
	"github.com/ambit-mesh/ambit/local/internal/network/ptp"
	"github.com/ambit-mesh/ambit/local/internal/runtime/view"
)

// Config says what a runtime works with.
type Config struct {
	// State is the cluster's state directory.
	State string
	// Bin is the directory of the mesh's own programs, which every container sees at BinDir.
	Bin string
	// Self is the path of the running executable.
	Self string
	// Applets are further program names, offered at the end of every container's PATH, by what they link to.
	Applets map[string]string
	// Hidden are further directories of the machine, beside State, that no pod sees.
	Hidden []string
	Log    *slog.Logger
}

// Where containers find the mesh's own programs and the applets.
const (
	BinDir    = "/ambit/bin"
	AppletDir = "/ambit/applets"
)

// DefaultPath is a container's PATH unless it sets one.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:" + AppletDir

// Runtime runs pods.
type Runtime struct {
	conf Config

	mu   sync.Mutex          // guards below
	logs map[string]*logFile // those being written, by path
}

// New makes a runtime for the sandbox that the process is in.
func New(c Config) *Runtime {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Runtime{conf: c, logs: map[string]*logFile{}}
}

// nodeDirs are the directories of its own that a node has in place of the machine's, by where processes of the node
// find them. /var/run and /run are one.
var nodeDirs = map[string]string{
	"/var/run": "run", "/run": "run", "/etc/cni": "etc/cni", "/opt/cni": "opt/cni",
	"/var/lib": "var/lib", "/var/log": "var/log", "/etc/kubernetes": "etc/kubernetes", "/tmp": "tmp",
}

// SetupNode makes a node's own directories: its /var/run in memory, as on any machine, and its CNI configuration with
// the local cluster's own plugin.
func (r *Runtime) SetupNode(n *network.Node) error {
	dir := r.nodeDir(n)
	for _, sub := range []string{"run", "etc/cni/net.d", "opt/cni/bin", "var/lib/cni", "var/log", "etc/kubernetes", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return fmt.Errorf("make node %s: %w", n.Name, err)
		}
	}
	run := filepath.Join(dir, "run")
	if err := unix.Mount("tmpfs", run, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount /var/run of node %s: %w", n.Name, err)
	}
	// What is mounted there later, pods' network namespaces, shows up in running containers.
	if err := unix.Mount("", run, "", unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share /var/run of node %s: %w", n.Name, err)
	}
	for _, sub := range []string{"netns", "ztunnel", "istio-cni"} {
		if err := os.Mkdir(filepath.Join(run, sub), 0o755); err != nil {
			return fmt.Errorf("make node %s: %w", n.Name, err)
		}
	}
	plugin := filepath.Join(dir, "opt/cni/bin", ptp.Name)
	if err := os.Remove(plugin); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("make node %s: %w", n.Name, err)
	}
	if err := os.Symlink(filepath.Join(BinDir, filepath.Base(r.conf.Self)), plugin); err != nil {
		return fmt.Errorf("make node %s: %w", n.Name, err)
	}
	conf := filepath.Join(dir, "etc/cni/net.d", conflist)
	if _, err := os.Stat(conf); err == nil {
		return nil // an agent of an earlier run may have chained itself
	}
	if err := os.WriteFile(conf, []byte(primary), 0o644); err != nil {
		return fmt.Errorf("make node %s: %w", n.Name, err)
	}
	return nil
}

// conflist is the node's network configuration as the local cluster writes it. Others chain themselves into it.
const (
	conflist = "10-ambit.conflist"
	primary  = `{
  "cniVersion": "1.0.0",
  "name": "ambit",
  "plugins": [
    {"type": "ambit-ptp", "capabilities": {"ips": true}}
  ]
}
`
)

func (r *Runtime) nodeDir(n *network.Node) string {
	return filepath.Join(r.conf.State, "nodes", n.Name)
}

// mounts are what every process of a node sees beside the machine.
func (r *Runtime) mounts() []view.Mount {
	return []view.Mount{{Source: r.conf.Bin, Target: BinDir, ReadOnly: true}}
}

// links are the applets.
func (r *Runtime) links() map[string]string {
	all := map[string]string{}
	for name, to := range r.conf.Applets {
		all[filepath.Join(AppletDir, name)] = filepath.Join(BinDir, to)
	}
	return all
}

// nodeMounts show a node's directories at their usual paths, as a process outside every pod sees them.
func (r *Runtime) nodeMounts(n *network.Node) []view.Mount {
	dir := r.nodeDir(n)
	return append(r.mounts(),
		view.Mount{Source: filepath.Join(dir, "run"), Target: "/run"},
		view.Mount{Source: filepath.Join(dir, "run"), Target: "/var/run"},
		view.Mount{Source: filepath.Join(dir, "etc/cni"), Target: "/etc/cni"},
		view.Mount{Source: filepath.Join(dir, "opt/cni"), Target: "/opt/cni"},
		view.Mount{Source: filepath.Join(dir, "var/lib"), Target: "/var/lib"},
		view.Mount{Source: filepath.Join(dir, "var/log"), Target: "/var/log"},
	)
}

// contextDone is ctx's reason as an error that says what was waited for.
func contextDone(ctx context.Context, what string) error {
	return fmt.Errorf("%s: %w", what, context.Cause(ctx))
}
