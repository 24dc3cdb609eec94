// Package canon gives every path and host one spelling, which rules see and backends receive.
package canon

import (
	"errors"
	"strings"
)

// Errors of paths and hosts that have no safe spelling; requests with them are answered 400.
var (
	ErrPath = errors.New("path is malformed or ambiguous")
	ErrHost = errors.New("host is malformed")
)

// Mode says how much of a path is normalised, as Istio's meshConfig.pathNormalization.
type Mode int

// Base resolves dot segments, backslashes and escapes of unreserved bytes; the others do more.
const (
	Base                  Mode = iota
	MergeSlashes               // also //
	DecodeAndMergeSlashes      // also %2F and %5C
)

const upperHex = "0123456789ABCDEF"

// Path is the canonical form of the path of a request target (no query). The result starts with / and consists of
// bytes that may stand in a path, so that net/url writes it unchanged. Applying Path again changes nothing.
func Path(raw string, mode Mode) (string, error) {
	if raw == "" || raw[0] != '/' && raw[0] != '\\' {
		return "", ErrPath
	}
	b := make([]byte, 0, len(raw)+8)
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		switch {
		case c == '%':
			if i+2 >= len(raw) {
				return "", ErrPath
			}
			hi, lo := unhex(raw[i+1]), unhex(raw[i+2])
			if hi < 0 || lo < 0 {
				return "", ErrPath
			}
			d := byte(hi<<4 | lo)
			switch {
			case d == 0:
				return "", ErrPath
			case unreserved(d):
				b = append(b, d)
			case mode == DecodeAndMergeSlashes && (d == '/' || d == '\\'):
				b = append(b, '/')
			default:
				b = append(b, raw[i:i+3]...)
			}
			i += 2
		case c <= ' ' || c == 0x7f || c == '#' || c == '?':
			return "", ErrPath
		case c == '\\':
			b = append(b, '/')
		case c >= 0x80 || strings.IndexByte("\"<>^`{|}", c) >= 0:
			b = append(b, '%', upperHex[c>>4], upperHex[c&15])
		default:
			b = append(b, c)
		}
	}
	return segments(string(b), mode >= MergeSlashes)
}

// segments resolves . and .. (RFC 3986, 5.2.4). A dot segment with parameters ("..;x") means .. to some servers and a
// name to others, so it is refused.
func segments(p string, merge bool) (string, error) {
	if !strings.Contains(p, "/.") && !(merge && strings.Contains(p, "//")) {
		return p, nil
	}
	parts := strings.Split(p[1:], "/")
	out := make([]string, 0, len(parts))
	for i, s := range parts {
		last := i == len(parts)-1
		switch {
		case s == ".":
			if last {
				out = append(out, "")
			}
		case s == "..":
			if len(out) > 0 {
				out = out[:len(out)-1]
			}
			if last {
				out = append(out, "")
			}
		case strings.HasPrefix(s, ".;"), strings.HasPrefix(s, "..;"):
			return "", ErrPath
		case s == "" && merge && !last:
		default:
			out = append(out, s)
		}
	}
	return "/" + strings.Join(out, "/"), nil
}

func unreserved(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
