package interop

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/mesh"
)

// dump is what of a /config_dump is needed here.
type dump struct {
	Workloads     []struct{ UID, Name string }
	Policies      []struct{ Name string }
	WorkloadState map[string]struct {
		State string
		Info  struct{ Name string }
	}
	Certificates []struct {
		Identity, State string
		CertChain       []struct{ PEM, SerialNumber, ValidFrom, ExpirationTime string }
		RootCerts       []struct{ PEM string }
	}

	whole map[string]any
}

// named are the workloads of that name; held the pods of that name that the ztunnel serves.
func (d dump) named(name string) (uids []string) {
	for _, w := range d.Workloads {
		if w.Name == name {
			uids = append(uids, w.UID)
		}
	}
	return uids
}

func (d dump) held(name string) (uids []string) {
	for uid, s := range d.WorkloadState {
		if s.Info.Name == name && s.State == "Up" {
			uids = append(uids, uid)
		}
	}
	return uids
}

func (w *world) page(t *testing.T, node string, port int, path string) []byte {
	t.Helper()
	b, err := w.Pod(t.Context(), http.MethodGet, mesh.SystemNamespace, w.ztunnel(t, node), port, path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (w *world) dump(t *testing.T, node string) dump {
	t.Helper()
	var d dump
	b := w.page(t, node, 15000, "/config_dump")
	for _, to := range []any{&d, &d.whole} {
		if err := json.Unmarshal(b, to); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// sameDump: everything that theirs says of the mesh, ours says with the same key and value; and our command reads both.
func sameDump(t *testing.T, w *world) {
	w.apply(t, policy("shown", "nobody", "DENY", `[{from: [{source: {principals: ["*"], notNamespaces: [a], ipBlocks: [10.1.0.0/16]}}], to: [{operation: {ports: ["1"]}}]}]`))
	w.withdraw(t, "authorizationpolicy", "shown")
	w.enforced(t, theirNode, "shown")
	w.enforced(t, ourNode, "shown")
	ours, theirs := w.dump(t, ourNode), w.dump(t, theirNode)
	for _, section := range []string{"workloads", "services", "policies", "stagedServices", "staticConfig"} {
		if d := told(byIdentity(theirs.whole[section]), byIdentity(ours.whole[section])); d != "" {
			t.Errorf("%s, -theirs +ours:\n%s", section, d)
		}
	}
	for _, section := range []string{"certificates", "workloadState"} {
		if d := told(shape(theirs.whole[section]), shape(ours.whole[section])); d != "" {
			t.Errorf("shape of %s, -theirs +ours:\n%s", section, d)
		}
	}
	for node, d := range map[string]dump{ourNode: ours, theirNode: theirs} {
		if len(d.Certificates) == 0 {
			t.Errorf("%s has no certificate", node)
		}
		for _, c := range d.Certificates {
			for _, cert := range c.CertChain {
				text, err := base64.StdEncoding.DecodeString(cert.PEM)
				if block, _ := pem.Decode(text); err != nil || block == nil {
					t.Errorf("%s: certificate of %s is not the base64 of a PEM block, which istioctl reads", node, c.Identity)
				}
			}
		}
	}
	for _, table := range []string{"workload", "service", "policy", "certificate", "connections", "log"} {
		for _, node := range []string{ourNode, theirNode} {
			out, err := w.Ambit(t.Context(), "ztunnel-config", table, "--node", node, w.State())
			if err != nil {
				t.Error(err)
			}
			if strings.Count(out, "\n") < 2 && table != "connections" {
				t.Errorf("ztunnel-config %s of %s:\n%s", table, node, out)
			}
		}
	}
}

// told is what of theirs ours does not tell, or tells otherwise. We may tell more.
func told(theirs, ours any) string { return cmp.Diff(theirs, common(ours, theirs)) }

// common leaves of v the keys that are also in the other.
func common(v, other any) any {
	switch v := v.(type) {
	case map[string]any:
		o, ok := other.(map[string]any)
		if !ok {
			return v
		}
		m := map[string]any{}
		for k, e := range v {
			if in, ok := o[k]; ok {
				m[k] = common(e, in)
			}
		}
		return m
	case []any:
		o, ok := other.([]any)
		if !ok || len(o) != len(v) {
			return v
		}
		list := make([]any, len(v))
		for i := range v {
			list[i] = common(v[i], o[i])
		}
		return list
	}
	return v
}

// byIdentity makes lists comparable whose order says nothing.
func byIdentity(v any) any {
	list, ok := v.([]any)
	if !ok {
		return v
	}
	m := map[string]any{}
	for _, e := range list {
		o, ok := e.(map[string]any)
		if !ok {
			return v
		}
		id := ""
		for _, k := range []string{"uid", "namespace", "name", "hostname"} {
			s, _ := o[k].(string)
			id += s + "/"
		}
		m[id] = o
	}
	return m
}

// shape keeps the keys of objects and the types of values.
func shape(v any) any {
	switch v := v.(type) {
	case map[string]any:
		m := map[string]any{}
		for k, e := range v {
			if regexp.MustCompile(`^[0-9a-f]{8}-`).MatchString(k) {
				k = "UID"
			}
			m[k] = shape(e)
		}
		return m
	case []any:
		if len(v) == 0 {
			return []any{}
		}
		return []any{shape(v[0])}
	case string:
		return "text"
	case float64:
		return "number"
	}
	return v
}

// series are the lines of a metrics page whose name begins with a prefix: name and labels → value.
func (w *world) series(t *testing.T, node, prefix string) map[string]float64 {
	t.Helper()
	all := map[string]float64{}
	for in := bufio.NewScanner(strings.NewReader(string(w.page(t, node, 15020, "/metrics")))); in.Scan(); {
		line := in.Text()
		at := strings.LastIndexByte(line, ' ')
		if at < 0 || line[0] == '#' || !strings.HasPrefix(line, prefix) {
			continue
		}
		v, err := strconv.ParseFloat(line[at+1:], 64)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		name, labels, _ := strings.Cut(strings.TrimSuffix(line[:at], "}"), "{")
		parts := regexp.MustCompile(`(\w+)="((?:[^"\\]|\\.)*)"`).FindAllString(labels, -1)
		slices.Sort(parts)
		all[name+"{"+strings.Join(parts, ",")+"}"] = v
	}
	return all
}

func (w *world) dnsRequests(t *testing.T, node string) (n float64) {
	t.Helper()
	for _, v := range w.series(t, node, "istio_dns_requests_total") {
		n += v
	}
	return n
}

// sameMetrics: after the same traffic each way, both report the same series with the same labels; what a connection
// adds is the same too.
func sameMetrics(t *testing.T, w *world) {
	swap := strings.NewReplacer(`"ours"`, `"theirs"`, `"theirs"`, `"ours"`, "sa/ours", "sa/theirs", "sa/theirs", "sa/ours",
		"ours.inter", "theirs.inter", "theirs.inter", "ours.inter")
	grown := func(node string, do func()) map[string]float64 {
		before := w.series(t, node, "istio_tcp_")
		do()
		grown := map[string]float64{}
		for k, v := range w.series(t, node, "istio_tcp_") {
			if v != before[k] {
				grown[k] = v - before[k]
			}
		}
		return grown
	}
	both := func() {
		for _, y := range w.ways() {
			w.during(t, y, func() {
				if a := w.ask(t, y.client, y.server.Name+".inter:9000"); a.Outcome != "ok" {
					t.Fatalf("%+v", a)
				}
			})
		}
	}
	for _, y := range w.ways() {
		w.becomes(t, true, y.client, y.server.Name+".inter:9000")
	}
	both() // so that names are known and tunnels are open
	ours, theirs := map[string]float64{}, map[string]float64{}
	for k, v := range grown(theirNode, both) {
		theirs[swap.Replace(k)] = v
	}
	maps.Copy(ours, grown(ourNode, both))
	for _, m := range []map[string]float64{ours, theirs} {
		for k, v := range m {
			delete(m, k)
			parts := strings.Split(k, ",")
			slices.Sort(parts)
			m[strings.Join(parts, ",")] = v
		}
	}
	if d := cmp.Diff(theirs, ours); d != "" {
		t.Errorf("-theirs +ours:\n%s", d)
	}
	families := func(node string) []string {
		names := map[string]bool{}
		for k := range w.series(t, node, "") {
			name, _, _ := strings.Cut(k, "{")
			name = strings.Replace(name, "workload_manager_", "istio_", 1) // as its own documentation calls them, and we
			if strings.HasPrefix(name, "istio_") {
				names[strings.TrimSuffix(name, "_bucket")] = true
			}
		}
		return slices.Sorted(maps.Keys(names))
	}
	known := families(ourNode)
	for _, name := range families(theirNode) {
		if !slices.Contains(known, name) {
			t.Errorf("only theirs reports %s", name)
		}
	}
}
