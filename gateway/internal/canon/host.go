package canon

import (
	"net/netip"
	"strconv"
	"strings"
)

// Host splits an authority into its canonical name (lower case, no trailing dot, no brackets) and its port, 0 if it
// has none. Anything that is not a plain name, address and port is refused.
func Host(authority string) (name string, port uint16, err error) {
	if len(authority) > 255+6 {
		return "", 0, ErrHost
	}
	host, rest := authority, ""
	if strings.HasPrefix(host, "[") {
		end := strings.IndexByte(host, ']')
		if end < 0 {
			return "", 0, ErrHost
		}
		host, rest = authority[1:end], authority[end+1:]
		ip, err := netip.ParseAddr(host)
		if err != nil || !ip.Is6() || ip.Zone() != "" {
			return "", 0, ErrHost
		}
		host = ip.String()
	} else {
		if i := strings.IndexByte(host, ':'); i >= 0 {
			host, rest = authority[:i], authority[i:]
		}
		if host, err = dnsName(host); err != nil {
			return "", 0, err
		}
	}
	if rest == "" {
		return host, 0, nil
	}
	if rest[0] != ':' || len(rest) > 8 {
		return "", 0, ErrHost
	}
	if rest == ":" {
		return host, 0, nil
	}
	for _, c := range []byte(rest[1:]) {
		if c < '0' || c > '9' {
			return "", 0, ErrHost
		}
	}
	n, err := strconv.ParseUint(rest[1:], 10, 16)
	if err != nil || n == 0 {
		return "", 0, ErrHost
	}
	return host, uint16(n), nil
}

func dnsName(s string) (string, error) {
	s = strings.TrimSuffix(s, ".")
	if strings.Contains(s, "..") || strings.HasPrefix(s, ".") {
		return "", ErrHost
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_' {
			continue
		}
		return "", ErrHost
	}
	if strings.HasSuffix(s, ".") {
		return "", ErrHost
	}
	return strings.ToLower(s), nil
}
