// Package identity holds SPIFFE identities as comparable values.
package identity

import (
	"fmt"
	"strings"
)

// Scheme is what every identity's URI starts with.
const Scheme = "spiffe://"

// ID is the identity of a workload: spiffe://TrustDomain/ns/Namespace/sa/ServiceAccount.
// The zero value means that nobody proved anything. Compare with ==.
type ID struct{ TrustDomain, Namespace, ServiceAccount string }

// IsZero reports whether id is nobody.
func (id ID) IsZero() bool { return id == ID{} }

// String is the URI, or "" for nobody.
func (id ID) String() string {
	if id.IsZero() {
		return ""
	}
	return Scheme + id.Principal()
}

// Principal is the URI without its scheme: the form that authorization policies are written in.
func (id ID) Principal() string {
	if id.IsZero() {
		return ""
	}
	return id.TrustDomain + "/ns/" + id.Namespace + "/sa/" + id.ServiceAccount
}

// MarshalText makes identities readable in JSON.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// Parse reads a SPIFFE URI of the form that Istio issues. It accepts nothing else: no query, no escapes,
// no empty or dot segments. Bytes are compared as they are (the SPIFFE-ID standard, section 2).
func Parse(uri string) (ID, error) {
	rest, ok := strings.CutPrefix(uri, Scheme)
	if !ok {
		return ID{}, fmt.Errorf("identity %q: does not start with %s", uri, Scheme)
	}
	if len(uri) > 2048 {
		return ID{}, fmt.Errorf("identity of %d bytes: longer than 2048", len(uri))
	}
	p := strings.Split(rest, "/")
	if len(p) != 5 || p[1] != "ns" || p[3] != "sa" {
		return ID{}, fmt.Errorf("identity %q: want spiffe://<trust domain>/ns/<namespace>/sa/<service account>", uri)
	}
	id := ID{TrustDomain: p[0], Namespace: p[2], ServiceAccount: p[4]}
	for _, part := range []string{id.TrustDomain, id.Namespace, id.ServiceAccount} {
		if err := checkSegment(part); err != nil {
			return ID{}, fmt.Errorf("identity %q: %w", uri, err)
		}
	}
	return id, nil
}

// checkSegment admits the characters that the SPIFFE-ID standard admits, in trust domain and path alike.
func checkSegment(s string) error {
	if s == "" || s == "." || s == ".." {
		return fmt.Errorf("segment %q is not a name", s)
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.':
		default:
			return fmt.Errorf("segment %q has the byte %#x", s, c)
		}
	}
	return nil
}
