package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/node/internal/hostview"
)

// hostRoot is the node's file system as its first process sees it, "" if it is not shown.
func hostRoot(proc string) string {
	if proc == "" {
		return ""
	}
	return filepath.Join(proc, "1", "root")
}

// open opens a network namespace by the path that it has on the node: the directory in which the runtime keeps it need not be
// mounted for the agent. Links on the way, such as /var/run, are the node's.
func (a *agent) open(path string) (*netns.Namespace, error) {
	root := hostRoot(a.conf.ProcDir)
	if root == "" {
		return netns.Open(path)
	}
	if of, ok := strings.CutPrefix(filepath.Clean(path), "/proc/"); ok { // as cri-dockerd says it
		return netns.Open(filepath.Join(a.conf.ProcDir, of))
	}
	f, err := hostview.Root(root).Open(path)
	if err != nil {
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	ns, err := netns.FromFile(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return ns, nil
}

// verifyEvery is how often the directories are compared: a node's runtime may start after the agent, or be set up anew.
const verifyEvery = time.Minute

// watchHost compares the directories that the agent was given with those that the node's runtime uses: in others the plugin would be
// in place, and never be called.
func (n *Node) watchHost(ctx context.Context) error {
	if !n.conf.VerifyHost || n.conf.ProcDir == "" {
		return nil
	}
	t := time.NewTicker(verifyEvery)
	defer t.Stop()
	for last := ""; ; {
		wrong, err := n.verify()
		text := strings.Join(wrong, "; ")
		if text == "" {
			n.misplaced.Store(nil)
		} else {
			n.misplaced.Store(&text)
		}
		switch {
		case err != nil && err.Error() != last:
			n.conf.Log.Warn("what the node's runtime uses is not known, and not compared with what the agent was given", "error", err)
			last = err.Error()
		case err == nil && text != last:
			if last = text; text != "" {
				n.conf.Log.Error("new pods would not be captured", "why", text)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

func (n *Node) verify() ([]string, error) {
	processes, err := hostview.Processes(n.conf.ProcDir)
	if err != nil {
		return nil, err
	}
	root := hostview.Root(hostRoot(n.conf.ProcDir))
	r, ok := hostview.Detect(root, processes)
	if !ok {
		return nil, errors.New("no process of the node is a container runtime that is known")
	}
	return hostview.Differences(root, r, hostview.Given{ConfDir: n.conf.ConfDir, BinDir: n.conf.BinDir})
}
