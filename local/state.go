// Package local runs a cluster of several nodes on one Linux machine: nodes and pods are network namespaces.
package local

import (
	"os"
	"path/filepath"
)

// DefaultState is the directory of the cluster of `ambit local up`: /var/lib/ambit/local for root, else
// $XDG_STATE_HOME/ambit/local.
func DefaultState() string {
	if os.Geteuid() == 0 {
		return "/var/lib/ambit/local"
	}
	dir := os.Getenv("XDG_STATE_HOME")
	if dir == "" {
		dir = filepath.Join(os.Getenv("HOME"), ".local", "state")
	}
	return filepath.Join(dir, "ambit", "local")
}
