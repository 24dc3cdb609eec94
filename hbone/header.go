package hbone

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/ambit-mesh/ambit/hbone/internal/h2"
)

// toFields gives headers in an order that does not change.
func toFields(h http.Header) ([]h2.Field, error) {
	if len(h) == 0 {
		return nil, nil
	}
	var fields []h2.Field
	for name, values := range h {
		for _, v := range values {
			fields = append(fields, h2.Field{Name: strings.ToLower(name), Value: v})
		}
	}
	slices.SortStableFunc(fields, func(a, b h2.Field) int { return strings.Compare(a.Name, b.Name) })
	for _, f := range fields {
		if why := h2.CheckField(f); why != "" {
			return nil, fmt.Errorf("%s", why)
		}
	}
	return fields, nil
}

func toHeader(fields []h2.Field) http.Header {
	h := make(http.Header, len(fields))
	for _, f := range fields {
		h.Add(f.Name, f.Value)
	}
	return h
}

// CheckAuthority admits ip:port, [ipv6]:port and hostname:port, and nothing else: no user, path, scheme, space, zone
// or port zero.
func CheckAuthority(s string) error {
	bad := func(why string) error { return fmt.Errorf("authority %q: %s", s, why) }
	if len(s) > 260 {
		return fmt.Errorf("authority of %d bytes", len(s))
	}
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return bad("no port")
	}
	host, port := s[:i], s[i+1:]
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || port[0] == '0' || port[0] == '+' {
		return bad("not a port")
	}
	if v6, ok := strings.CutPrefix(host, "["); ok {
		v6, ok = strings.CutSuffix(v6, "]")
		if a, err := netip.ParseAddr(v6); !ok || err != nil || !a.Is6() || a.Zone() != "" {
			return bad("not an IPv6 address")
		}
		return nil
	}
	if a, err := netip.ParseAddr(host); err == nil && a.Is4() {
		return nil
	}
	return checkHostname(host, bad)
}

// checkHostname admits DNS names, with the underscores that some services have.
func checkHostname(host string, bad func(string) error) error {
	if host == "" || len(host) > 253 {
		return bad("not a host")
	}
	numeric := true
	for label := range strings.SplitSeq(strings.TrimSuffix(host, "."), ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return bad("not a host")
		}
		numeric = true
		for i := range len(label) {
			c := label[i]
			switch {
			case c >= '0' && c <= '9':
			case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '-', c == '_':
				numeric = false
			default:
				return bad("not a host")
			}
		}
	}
	if numeric { // the last label: 10.0.0 or 0x7f.1 are no names but badly written addresses
		return bad("neither an address nor a name")
	}
	return nil
}
