package link

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/ambit-mesh/ambit/linux/netns"
)

// SetSysctl writes a setting of the namespace, named as a path below /proc/sys/net: "ipv4/ip_forward".
// It writes only if the value differs, so that a read-only /proc with the right value is no error.
func SetSysctl(ns *netns.Namespace, key, value string) error {
	have, err := Sysctl(ns, key)
	if err == nil && have == value {
		return nil
	}
	err = netns.Do(ns, func() error { return os.WriteFile(sysctlPath(key), []byte(value), 0o644) })
	if err != nil {
		return fmt.Errorf("set net/%s to %s: %w", key, value, err)
	}
	return nil
}

// Sysctl reads a setting of the namespace.
func Sysctl(ns *netns.Namespace, key string) (string, error) {
	var b []byte
	err := netns.Do(ns, func() (err error) {
		b, err = os.ReadFile(sysctlPath(key)) // the kernel shows the namespace of the reading thread
		return err
	})
	if err != nil {
		return "", fmt.Errorf("read net/%s: %w", key, err)
	}
	return strings.TrimSpace(string(b)), nil
}

func sysctlPath(key string) string { return filepath.Join("/proc/sys/net", filepath.Clean("/"+key)) }
