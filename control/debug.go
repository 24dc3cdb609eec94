package control

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/ambit-mesh/ambit/collection"
	"github.com/ambit-mesh/ambit/control/internal/status"
	"github.com/ambit-mesh/ambit/control/source"
	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/control/source/meshconfig"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/xds/server"
)

// debugPages are what a person may look at, by path. None holds a key, a token or a Secret.
func (c *Control) debugPages(xds *server.Server[source.Caller], a *authority) map[string]page {
	onlyRoot := func(p func() any) page {
		return func(s scope) any {
			if !s.all {
				return nil
			}
			return p()
		}
	}
	return map[string]page{
		"/debug/syncz":          func(s scope) any { return subscribers(xds, s) },
		"/debug/connections":    func(s scope) any { return connections(xds, s) },
		"/debug/registryz":      func(s scope) any { return c.registry(s) },
		"/debug/ambientz":       func(s scope) any { return c.ambient(s) },
		"/debug/configz":        func(s scope) any { return c.config(s) },
		"/debug/authorizationz": func(s scope) any { return c.authorization(xds, s) },
		"/debug/statusz":        func(s scope) any { return c.statuses(s) },
		"/debug/ca":             onlyRoot(func() any { return a.report() }),
		"/debug/filez":          onlyRoot(func() any { return c.problems() }),
		"/debug/mesh": onlyRoot(func() any {
			if c.conf.Mesh == nil {
				return meshconfig.Report{InForce: meshconfig.Config{TrustDomain: c.conf.TrustDomain, RootNamespace: c.conf.RootNamespace}}
			}
			return c.conf.Mesh.Report()
		}),
	}
}

func subscribers(xds *server.Server[source.Caller], s scope) []server.Subscriber[source.Caller] {
	return slices.DeleteFunc(xds.Subscribers(), func(x server.Subscriber[source.Caller]) bool { return !s.sees(x.Caller.Namespace) })
}

// connection is a subscriber in short.
type connection struct {
	Node, Caller, Cluster string
	Connected             time.Time
}

func connections(xds *server.Server[source.Caller], s scope) []connection {
	out := []connection{}
	for _, x := range subscribers(xds, s) {
		out = append(out, connection{x.Node, x.Caller.Account(), x.Cluster, x.Connected})
	}
	return out
}

// shown are the messages of a collection that a caller may see, by name.
func shown[T proto.Message](all collection.Collection[T], namespace func(T) string, s scope) map[string]json.RawMessage {
	out := map[string]json.RawMessage{}
	for key, m := range all.All() {
		if !s.sees(namespace(m)) {
			continue
		}
		if text, err := protojson.Marshal(m); err == nil {
			out[key] = text
		}
	}
	return out
}

type namespaced interface {
	proto.Message
	GetNamespace() string
}

func ownNamespace[T namespaced](m T) string { return m.GetNamespace() }

func (c *Control) registry(s scope) map[string]json.RawMessage {
	out := map[string]json.RawMessage{}
	for key, x := range c.out.Services.All() {
		if s.sees(x.Wire.Namespace) {
			if text, err := protojson.Marshal(x.Wire); err == nil {
				out[key] = text
			}
		}
	}
	return out
}

func (c *Control) ambient(s scope) any {
	return map[string]any{
		"workloads": shown(c.out.Workloads, ownNamespace, s),
		"services":  c.registry(s),
		"policies":  shown(c.out.Policies, ownNamespace, s),
	}
}

// config shows the objects of the mesh's own kinds, as they were read.
func (c *Control) config(s scope) []json.RawMessage {
	out := []json.RawMessage{}
	c.store.Each(func(o kinds.Object) {
		if group := kinds.Of(o).Group; !strings.HasSuffix(group, "istio.io") && group != "gateway.networking.k8s.io" || !s.sees(o.GetNamespace()) {
			return
		}
		if text, err := kinds.EncodeJSON(o); err == nil {
			out = append(out, text)
		}
	})
	slices.SortFunc(out, func(a, b json.RawMessage) int { return cmp.Compare(string(a), string(b)) })
	return out
}

// policyReport is a policy of node proxies, and who has it.
type policyReport struct {
	Policy  json.RawMessage
	Holders []server.Holder[source.Caller]
}

func (c *Control) authorization(xds *server.Server[source.Caller], s scope) map[string]policyReport {
	out := map[string]policyReport{}
	for key, text := range shown(c.out.Policies, ownNamespace, s) {
		r := policyReport{Policy: text}
		if s.all { // who else is connected is nobody's business
			r.Holders = xds.Holders(mesh.TypeAuthorization, key)
		}
		out[key] = r
	}
	return out
}

func (c *Control) statuses(s scope) map[string][]status.Condition {
	out := map[string][]status.Condition{}
	for key, st := range c.out.Statuses.All() {
		if namespace, _ := st.Ref.Names(); s.sees(namespace) {
			out[key] = st.Conditions
		}
	}
	return out
}

// problems are what the source cannot read.
func (c *Control) problems() []source.Problem {
	if t, ok := c.conf.Objects.(interface{ Problems() []source.Problem }); ok {
		return append([]source.Problem{}, t.Problems()...)
	}
	return []source.Problem{}
}
