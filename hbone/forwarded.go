package hbone

import (
	"fmt"
	"net/netip"
	"strings"
)

// Forwarded tells the next hop where a connection really came from (RFC 7239, as far as tunnels use it).
type Forwarded struct {
	For  netip.AddrPort // the client's socket
	Host string         // the service that the client meant, if it is known
}

// maxHeaderValue bounds what is parsed of a header that another proxy wrote.
const maxHeaderValue = 8 << 10

// String is the header's value: for="10.0.0.1:4711";host=web.default.svc.cluster.local.
func (f Forwarded) String() string {
	s := `for="` + f.For.String() + `"`
	if f.Host != "" {
		s += ";host=" + f.Host
	}
	return s
}

// ParseForwarded reads the first element of a header's value. Parameters that it does not know are passed over.
func ParseForwarded(v string) (Forwarded, error) {
	if len(v) > maxHeaderValue {
		return Forwarded{}, fmt.Errorf("forwarded header of %d bytes", len(v))
	}
	var f Forwarded
	first, _, _ := strings.Cut(v, ",")
	for part := range strings.SplitSeq(first, ";") {
		name, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok {
			continue
		}
		value = strings.TrimSuffix(strings.TrimPrefix(value, `"`), `"`)
		switch strings.ToLower(name) {
		case "for":
			addr, err := parseNode(value)
			if err != nil {
				return Forwarded{}, fmt.Errorf("forwarded header %q: %w", v, err)
			}
			f.For = addr
		case "host":
			if validHost(value) {
				f.Host = value
			}
		}
	}
	if !f.For.IsValid() {
		return Forwarded{}, fmt.Errorf("forwarded header %q: no client address", v)
	}
	return f, nil
}

// parseNode reads ip:port, or an address without a port, which then is zero.
func parseNode(s string) (netip.AddrPort, error) {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap, nil
	}
	a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"))
	return netip.AddrPortFrom(a, 0), err
}

// validHost admits what a hostname or an address may be written with, and so nothing that could end the header early.
func validHost(s string) bool {
	return s != "" && len(s) <= 255 && strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.:[]*", r))
	}) < 0
}
