package control

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"

	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/control/internal/ambient"
	"github.com/ambit-mesh/ambit/control/internal/push"
	"github.com/ambit-mesh/ambit/control/source"
	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/internal/testkit/script"
	"github.com/ambit-mesh/ambit/mesh"
)

// TestScripts reads YAML and compares what proxies are told of it. A section in.yaml is all there is; sections named
// then*.yaml are further objects, applied before anything is compared.
func TestScripts(t *testing.T) {
	script.Run(t, "testdata/*.txtar", func(t *testing.T, s *script.File) {
		st := source.NewStore()
		out := push.New(st, ambient.Config{
			ClusterID: mesh.ClusterID, TrustDomain: mesh.TrustDomain, ClusterDomain: mesh.ClusterDomain, RootNamespace: mesh.SystemNamespace,
		}, nil)
		for _, name := range s.Sections() {
			if strings.HasSuffix(name, ".yaml") {
				st.Apply(objects(t, name, s.Text(name)), nil)
			}
		}
		for _, name := range s.Sections() {
			switch name {
			case "workloads":
				s.Want(name, texts(t, out.Workloads.All()))
			case "services":
				s.Want(name, texts(t, wires(out.Services.All())))
			case "policies":
				s.Want(name, texts(t, out.Policies.All()))
			case "status":
				var lines []string
				for _, st := range out.Statuses.All() {
					all := st.Conditions
					for _, at := range st.AtParents {
						all = append(all, at...)
					}
					for _, c := range all {
						lines = append(lines, fmt.Sprintf("%s %s: %s %v %s: %s\n", st.Ref.Kind.Kind, st.Ref.Key, c.Type, c.True, c.Reason, c.Message))
					}
				}
				slices.Sort(lines)
				s.Want(name, strings.Join(lines, ""))
			}
		}
	})
}

func objects(t testing.TB, name, text string) []kinds.Object {
	t.Helper()
	found, err := kinds.Decode(name, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var out []kinds.Object
	for _, l := range found {
		if kinds.Of(l.Object).Namespaced && l.Object.GetNamespace() == "" {
			l.Object.SetNamespace("default")
		}
		out = append(out, l.Object)
	}
	return out
}

func wires(all iter.Seq2[string, *ambient.Service]) iter.Seq2[string, *workload.Service] {
	return func(yield func(string, *workload.Service) bool) {
		for k, s := range all {
			if !yield(k, s.Wire) {
				return
			}
		}
	}
}

// texts writes messages as YAML under their names, addresses readable.
func texts[T proto.Message](t *testing.T, all iter.Seq2[string, T]) string {
	t.Helper()
	messages := maps.Collect(all)
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(messages)) {
		data, err := protojson.Marshal(messages[name])
		if err != nil {
			t.Fatal(err)
		}
		var v any
		if err := json.Unmarshal(data, &v); err != nil {
			t.Fatal(err)
		}
		text, err := yaml.Marshal(map[string]any{name: readable("", v)})
		if err != nil {
			t.Fatal(err)
		}
		b.Write(text)
	}
	return b.String()
}

func readable(key string, v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, inner := range v {
			v[k] = readable(k, inner)
		}
	case []any:
		for i, inner := range v {
			v[i] = readable(key, inner)
		}
	case string:
		if key == "address" || key == "addresses" {
			if raw, err := base64.StdEncoding.DecodeString(v); err == nil {
				if a, ok := netip.AddrFromSlice(raw); ok {
					return a.String()
				}
			}
		}
	}
	return v
}
