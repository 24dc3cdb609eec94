package sock

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/linux/netns"
)

// Owns reports whether an address is one of ns's own.
func Owns(ns *netns.Namespace, a netip.Addr) (bool, error) {
	l, err := ListenUDP(ns, netip.AddrPortFrom(a, 0), Options{})
	switch {
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("find out whose %s is: %w", a, err)
	}
	return true, l.Close()
}
