package dns

import (
	"bufio"
	"io"
	"net/netip"
	"strings"
)

const (
	serverPort  = 53
	mostServers = 3 // as the C library
)

// Servers reads the addresses of resolvers from a file of the form of resolv.conf(5).
func Servers(r io.Reader) ([]netip.AddrPort, error) {
	var out []netip.AddrPort
	s := bufio.NewScanner(r)
	for s.Scan() && len(out) < mostServers {
		words := strings.Fields(s.Text())
		if len(words) < 2 || words[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(words[1]); err == nil {
			out = append(out, netip.AddrPortFrom(a.Unmap(), serverPort))
		}
	}
	return out, s.Err()
}
