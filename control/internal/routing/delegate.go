package routing

import (
	"cmp"
	"fmt"
	"maps"
	"strings"

	"google.golang.org/protobuf/proto"
	networking "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/ambit-mesh/ambit/collection"
)

// entry is one rule of a VirtualService with the object whose names it is to be read in: its own, or the delegate's.
type entry struct {
	vs    *networkingv1.VirtualService
	where string // "http[2]"
	http  *networking.HTTPRoute
}

// entries are the rules of a VirtualService, those that it delegates put in their places.
func (x *planner) entries(vs *networkingv1.VirtualService) []entry {
	var out []entry
	for i, h := range vs.Spec.GetHttp() {
		where := fmt.Sprintf("http[%d]", i)
		if h.GetDelegate() == nil {
			out = append(out, entry{vs, where, h})
			continue
		}
		out = append(out, x.delegated(vs, where, h)...)
	}
	return out
}

func (x *planner) delegated(root *networkingv1.VirtualService, where string, h *networking.HTTPRoute) []entry {
	no := func(format string, args ...any) {
		x.problem("VirtualService", root.Namespace, root.Name, where+".delegate: "+format, args...)
	}
	key := cmp.Or(h.GetDelegate().GetNamespace(), root.Namespace) + "/" + h.GetDelegate().GetName()
	vs, ok := collection.Get(x.r, x.VirtualServices, key)
	switch {
	case !ok:
		no("there is no VirtualService %s; the rule leads nowhere", key)
		return nil
	case len(vs.Spec.GetHosts()) > 0 || len(vs.Spec.GetGateways()) > 0:
		no("VirtualService %s has hosts or gateways of its own, so that it cannot be delegated to", key)
		return nil
	case !exported(vs.Spec.GetExportTo(), vs.Namespace, root.Namespace):
		no("VirtualService %s is not exported to namespace %s", key, root.Namespace)
		return nil
	}
	var out []entry
	for i, d := range vs.Spec.GetHttp() {
		merged, ok := merge(h, d)
		switch {
		case d.GetDelegate() != nil:
			x.problem("VirtualService", vs.Namespace, vs.Name, "http[%d].delegate: a delegate cannot delegate", i)
		case !ok:
			x.problem("VirtualService", vs.Namespace, vs.Name, "http[%d]: no request can meet its match and that of VirtualService %s/%s, %s", i, root.Namespace, root.Name, where)
		default:
			out = append(out, entry{vs, fmt.Sprintf("http[%d]", i), merged})
		}
	}
	return out
}

// merge makes one rule of a rule that delegates and one of its delegate. What both say, the delegate says.
func merge(root, leaf *networking.HTTPRoute) (*networking.HTTPRoute, bool) {
	out := proto.CloneOf(leaf)
	if root.GetName() != "" && leaf.GetName() != "" {
		out.Name = root.GetName() + "-" + leaf.GetName()
	} else {
		out.Name = cmp.Or(root.GetName(), leaf.GetName())
	}
	r := proto.CloneOf(root)
	if out.Rewrite == nil {
		out.Rewrite = r.Rewrite
	}
	if out.Timeout == nil {
		out.Timeout = r.Timeout
	}
	if out.Retries == nil {
		out.Retries = r.Retries
	}
	if out.Fault == nil {
		out.Fault = r.Fault
	}
	if out.Mirror == nil && len(out.Mirrors) == 0 {
		out.Mirror, out.MirrorPercentage, out.Mirrors = r.Mirror, r.MirrorPercentage, r.Mirrors
	}
	if out.CorsPolicy == nil {
		out.CorsPolicy = r.CorsPolicy
	}
	out.Headers = mergeHeaders(r.Headers, out.Headers)
	var ok bool
	out.Match, ok = mergeMatches(r.Match, out.Match)
	return out, ok
}

func mergeHeaders(root, leaf *networking.Headers) *networking.Headers {
	if root == nil || leaf == nil {
		return cmp.Or(leaf, root)
	}
	return &networking.Headers{Request: mergeOperations(root.Request, leaf.Request), Response: mergeOperations(root.Response, leaf.Response)}
}

func mergeOperations(root, leaf *networking.Headers_HeaderOperations) *networking.Headers_HeaderOperations {
	if root == nil || leaf == nil {
		return cmp.Or(leaf, root)
	}
	return &networking.Headers_HeaderOperations{
		Set: union(root.Set, leaf.Set), Add: union(root.Add, leaf.Add), Remove: append(append([]string{}, root.Remove...), leaf.Remove...),
	}
}

func union[V any](root, leaf map[string]V) map[string]V {
	if len(root)+len(leaf) == 0 {
		return nil
	}
	out := maps.Clone(root)
	if out == nil {
		out = map[string]V{}
	}
	maps.Copy(out, leaf)
	return out
}

// mergeMatches are the conditions of both; false means that no request can meet them.
func mergeMatches(root, leaf []*networking.HTTPMatchRequest) ([]*networking.HTTPMatchRequest, bool) {
	if len(root) == 0 {
		return leaf, true
	}
	if len(leaf) == 0 {
		return root, true
	}
	var out []*networking.HTTPMatchRequest
	for _, r := range root {
		for _, l := range leaf {
			if m, ok := mergeMatch(r, l); ok {
				out = append(out, m)
			}
		}
	}
	return out, len(out) > 0
}

func mergeMatch(root, leaf *networking.HTTPMatchRequest) (*networking.HTTPMatchRequest, bool) {
	if root.GetIgnoreUriCase() != leaf.GetIgnoreUriCase() && root.GetUri() != nil && leaf.GetUri() != nil {
		return nil, false
	}
	out := proto.CloneOf(leaf)
	out.IgnoreUriCase = root.GetIgnoreUriCase() || leaf.GetIgnoreUriCase()
	for _, f := range []struct{ root, leaf **networking.StringMatch }{
		{&root.Uri, &out.Uri}, {&root.Scheme, &out.Scheme}, {&root.Method, &out.Method}, {&root.Authority, &out.Authority},
	} {
		if !narrows(*f.root, *f.leaf) {
			return nil, false
		}
		if *f.leaf == nil {
			*f.leaf = *f.root
		}
	}
	for _, f := range []struct {
		root, leaf *map[string]*networking.StringMatch
	}{
		{&root.Headers, &out.Headers}, {&root.WithoutHeaders, &out.WithoutHeaders}, {&root.QueryParams, &out.QueryParams},
	} {
		for k, r := range *f.root {
			if l, both := (*f.leaf)[k]; both && !narrows(r, l) {
				return nil, false
			}
		}
		*f.leaf = union(*f.root, *f.leaf)
	}
	for k, v := range root.GetSourceLabels() {
		if l, both := leaf.GetSourceLabels()[k]; both && l != v {
			return nil, false
		}
	}
	out.SourceLabels = union(root.SourceLabels, leaf.SourceLabels)
	if root.GetPort() != 0 && leaf.GetPort() != 0 && root.GetPort() != leaf.GetPort() {
		return nil, false
	}
	out.Port = cmp.Or(leaf.Port, root.Port)
	out.SourceNamespace = cmp.Or(leaf.SourceNamespace, root.SourceNamespace)
	if len(out.Gateways) == 0 {
		out.Gateways = root.Gateways
	}
	return out, true
}

// narrows reports whether everything that meets leaf meets root too. Expressions are not compared: with one on either
// side, only equal conditions go together.
func narrows(root, leaf *networking.StringMatch) bool {
	if root == nil || leaf == nil || proto.Equal(root, leaf) {
		return true
	}
	prefix, ok := root.GetMatchType().(*networking.StringMatch_Prefix)
	if !ok {
		return root.GetMatchType() == nil // presence
	}
	switch l := leaf.GetMatchType().(type) {
	case *networking.StringMatch_Prefix:
		return strings.HasPrefix(l.Prefix, prefix.Prefix)
	case *networking.StringMatch_Exact:
		return strings.HasPrefix(l.Exact, prefix.Prefix)
	}
	return false
}
