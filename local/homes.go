package local

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// hiddenDirs are directories of the machine that no pod sees: this user's clusters, and what people keep at home.
// Programs are taken from the rest of the machine, so a home that holds part of that stays seen.
func hiddenDirs() []string {
	dirs := []string{DefaultState(), "/home", "/root"}
	if home, err := os.UserHomeDir(); err == nil && hideable(home) && !slices.Contains(dirs, home) {
		dirs = append(dirs, home)
	}
	return dirs
}

// hideable tells whether a machine still works for those who do not see a directory.
func hideable(dir string) bool {
	dir = filepath.Clean(dir)
	if !filepath.IsAbs(dir) || dir == "/" {
		return false
	}
	for _, needed := range []string{"/bin", "/dev", "/etc", "/lib", "/lib64", "/nix", "/opt", "/proc", "/run", "/sbin", "/sys", "/tmp", "/usr", "/var/lib", "/var/run"} {
		if needed == dir || strings.HasPrefix(needed, dir+"/") {
			return false
		}
	}
	return true
}
