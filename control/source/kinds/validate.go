package kinds

import (
	"cmp"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Validate finds what is wrong with the meaning of an object that Decode accepts: what Istio's webhook refuses.
func Validate(o Object) Problems {
	var v validator
	switch o := o.(type) {
	case *networkingv1.VirtualService:
		v.virtualService(&o.Spec)
	case *networkingv1.Gateway:
		v.gateway(&o.Spec)
	case *networkingv1.DestinationRule:
		v.destinationRule(&o.Spec)
	case *networkingv1.ServiceEntry:
		v.serviceEntry(&o.Spec)
	case *networkingv1.WorkloadEntry:
		v.workloadEntry("spec", &o.Spec)
	case *securityv1.AuthorizationPolicy:
		v.authorizationPolicy(&o.Spec)
	case *securityv1.PeerAuthentication:
		v.peerAuthentication(&o.Spec)
	case *securityv1.RequestAuthentication:
		v.requestAuthentication(&o.Spec)
	}
	slices.SortStableFunc(v.found, func(a, b Problem) int { return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.What, b.What)) })
	return v.found
}

// validator collects problems.
type validator struct{ found Problems }

func (v *validator) fail(path, hint, format string, args ...any) {
	if len(v.found) < maxProblems {
		v.found = append(v.found, Problem{Path: path, What: fmt.Sprintf(format, args...), Hint: hint})
	}
}

// sub is the path of an item of a list.
func sub(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

func (v *validator) port(path string, n uint32) {
	if n == 0 || n > 65535 {
		v.fail(path, "", "port %d is not between 1 and 65535", n)
	}
}

// maxRegex bounds what every request would be matched with.
const maxRegex = 1024

func (v *validator) regex(path, expr string) {
	if len(expr) > maxRegex {
		v.fail(path, "", "regular expression of %d characters, more than %d", len(expr), maxRegex)
		return
	}
	if _, err := regexp.Compile(expr); err != nil {
		v.fail(path, "write it in RE2 syntax", "is not a regular expression: %v", err)
	}
}

// host checks a name that may begin with "*.", be "*", or be an address.
func (v *validator) host(path, name string) {
	if _, err := netip.ParseAddr(name); err == nil || name == "*" {
		return
	}
	plain := strings.TrimPrefix(name, "*.")
	if plain == "" || len(name) > 255 {
		v.fail(path, "", "%q is not a host name", name)
		return
	}
	for _, label := range strings.Split(strings.TrimSuffix(plain, "."), ".") {
		if len(validation.IsDNS1123Label(strings.ToLower(label))) > 0 {
			v.fail(path, "use letters, digits, '-' and '.', with \"*.\" only in front", "%q is not a host name", name)
			return
		}
	}
}

// protocol checks a word for a protocol of a port.
func (v *validator) protocol(path, word string) {
	known := []string{"HTTP", "HTTPS", "GRPC", "GRPC-WEB", "HTTP2", "MONGO", "TCP", "TLS", "REDIS", "MYSQL", "HBONE"}
	if slices.Contains(append(known, "UDP"), strings.ToUpper(word)) {
		return
	}
	hint := "known: " + strings.Join(known, ", ")
	if near, ok := nearest(word, known); ok && word != "" {
		hint = fmt.Sprintf("did you mean %s? %s", near, hint)
	}
	v.fail(path, hint, "unknown protocol %q", word)
}

func (v *validator) blocks(path string, values []string) {
	for i, s := range values {
		_, errAddr := netip.ParseAddr(s)
		_, errRange := netip.ParsePrefix(s)
		if errAddr != nil && errRange != nil {
			v.fail(sub(path, i), "write 10.1.2.3 or 10.1.0.0/16", "%q is neither an IP address nor a range", s)
		}
	}
}

func (v *validator) ports(path string, values []string) {
	for i, s := range values {
		if n, err := strconv.ParseUint(s, 10, 32); err != nil || n > 65535 {
			v.fail(sub(path, i), "", "%q is not a port number", s)
		}
	}
}

func (v *validator) filled(path string, values []string) {
	for i, s := range values {
		if s == "" {
			v.fail(sub(path, i), "remove it or fill it in", "is empty")
		}
	}
}

// labels checks a selector's labels. "*" is a value that no label has, so it would select nothing.
func (v *validator) labels(path string, labels map[string]string) {
	for k, val := range labels {
		if k == "" {
			v.fail(path, "", "has a label without a name")
		}
		if strings.Contains(k+val, "*") {
			v.fail(join(path, k), "a label matches exactly", "has a wildcard")
		}
	}
}
