package hbone

import (
	"fmt"
	"net/url"
	"strings"
)

// Baggage tells the other side of a tunnel who is behind it, for its metrics only: nothing of it is proved.
type Baggage struct {
	Cluster   string
	Namespace string
	Kind      string // deployment, cronjob, job or pod
	Workload  string // its name
	Service   string
	Revision  string
	Region    string
	Zone      string
}

// maxMembers bounds how many members of a header are looked at (W3C Baggage allows 64).
const maxMembers = 64

// String is the header's value: what is known, in the order that Istio writes.
func (b Baggage) String() string {
	var s []string
	add := func(k, v string) {
		if v != "" {
			s = append(s, k+"="+escapeBaggage(v))
		}
	}
	add("k8s.cluster.name", b.Cluster)
	add("k8s.namespace.name", b.Namespace)
	if baggageKind(b.Kind) {
		add("k8s."+b.Kind+".name", b.Workload)
	}
	add("service.name", b.Service)
	add("service.version", b.Revision)
	add("cloud.region", b.Region)
	add("cloud.availability_zone", b.Zone)
	return strings.Join(s, ",")
}

// ParseBaggage reads a header's value. Members that it does not know are passed over.
func ParseBaggage(v string) (Baggage, error) {
	if len(v) > maxHeaderValue {
		return Baggage{}, fmt.Errorf("baggage header of %d bytes", len(v))
	}
	var b Baggage
	n := 0
	for member := range strings.SplitSeq(v, ",") {
		if n++; n > maxMembers {
			return Baggage{}, fmt.Errorf("baggage header with more than %d members", maxMembers)
		}
		member, _, _ = strings.Cut(member, ";") // properties
		k, raw, ok := strings.Cut(strings.TrimSpace(member), "=")
		if !ok {
			continue
		}
		value, err := url.PathUnescape(strings.TrimSpace(raw))
		if err != nil {
			continue
		}
		b.set(strings.TrimSpace(k), value)
	}
	return b, nil
}

func (b *Baggage) set(k, v string) {
	switch k {
	case "k8s.cluster.name":
		b.Cluster = v
	case "k8s.namespace.name":
		b.Namespace = v
	case "service.name":
		b.Service = v
	case "service.version":
		b.Revision = v
	case "cloud.region":
		b.Region = v
	case "cloud.availability_zone":
		b.Zone = v
	default:
		kind, ok := strings.CutPrefix(k, "k8s.")
		kind, named := strings.CutSuffix(kind, ".name")
		if ok && named && baggageKind(kind) {
			b.Kind, b.Workload = kind, v
		}
	}
}

func baggageKind(s string) bool {
	switch s {
	case "deployment", "cronjob", "job", "pod":
		return true
	}
	return false
}

// escapeBaggage escapes what W3C Baggage does not admit in a value.
func escapeBaggage(s string) string {
	var out strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case c <= ' ', c >= 0x7f, c == '"', c == ',', c == ';', c == '\\', c == '%':
			fmt.Fprintf(&out, "%%%02X", c)
		default:
			out.WriteByte(c)
		}
	}
	return out.String()
}
