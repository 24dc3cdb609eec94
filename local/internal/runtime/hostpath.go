package runtime

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/ambit-mesh/ambit/local/internal/network"
)

// StateDir is the path by which pods ask for the cluster's state directory.
const StateDir = "/var/lib/ambit"

// IsState tells whether a host path is the cluster's state or in it: its keys, tokens' keys and Secrets.
func IsState(path string) bool {
	_, ok := below(filepath.Clean(path), StateDir)
	return ok
}

// HostPath is where a path of the node is on the machine: only a node's own directories and the cluster's state, at
// StateDir, can be given to pods, and no link that a pod left there leads out of them. Directories are made if they are
// missing and create is set.
func (r *Runtime) HostPath(n *network.Node, path string, create bool) (string, error) {
	top, rest, err := r.hostPath(n, filepath.Clean(path))
	if err != nil {
		return "", err
	}
	real, err := within(top, rest, create)
	if err != nil {
		return "", fmt.Errorf("host path %s: %w", path, err)
	}
	return real, nil
}

// hostPath is the directory of the machine that a path is in, and the path in it.
func (r *Runtime) hostPath(n *network.Node, path string) (top, rest string, err error) {
	if rest, ok := below(path, StateDir); ok {
		return r.conf.State, rest, nil
	}
	for dir, own := range nodeDirs {
		if rest, ok := below(path, dir); ok {
			return filepath.Join(r.nodeDir(n), own), rest, nil
		}
	}
	return "", "", fmt.Errorf("host path %s: a local node has only /var/run, /run, /etc/cni, /opt/cni, /var/lib, /var/log and /tmp of its own, and never gives the machine's to pods", path)
}

// within is a path in a directory, which links do not lead out of.
func within(top, rest string, create bool) (string, error) {
	root, err := os.OpenRoot(top)
	if err != nil {
		return "", err
	}
	defer root.Close()
	if create {
		if err := root.MkdirAll(rest, 0o755); err != nil {
			return "", err
		}
	}
	path := filepath.Join(top, rest)
	if _, err := root.Stat(rest); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return path, nil // whoever mounts it says so
		}
		return "", err
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	if top, err = filepath.EvalSymlinks(top); err != nil {
		return "", err
	}
	if _, ok := below(real, top); !ok {
		return "", errors.New("a link leads out of the node's own directories")
	}
	return real, nil
}

// below tells whether a clean path is dir or in it, and the rest.
func below(path, dir string) (rest string, ok bool) {
	rel, err := filepath.Rel(dir, path)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return "", false
	}
	return rel, true
}

// hidden are the directories of the machine that no pod sees but by a mount.
func (r *Runtime) hidden() []string { return append([]string{r.conf.State}, r.conf.Hidden...) }
