package proxy_test

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/api/authorization"
)

// records are the access lines written since the log had so many bytes, once there are so many of them, without what
// differs each time and what we tell besides (docs/interoperability.md).
func (w *world) records(from, count int) []string {
	w.t.Helper()
	for deadline := time.Now().Add(3 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		var all []string
		for line := range strings.Lines(w.log.String()[from:]) {
			if !strings.Contains(line, "\taccess\t") {
				continue
			}
			for _, r := range []struct{ from, to string }{
				{`^\S+\t`, ""},
				{`(src\.addr=[\d.]+):\d+`, "$1"},
				{`duration="\d+ms"`, "duration"},
				{` policy="[^"]*"`, ""},
				{` why="(?:[^"\\]|\\.)*"`, ""},
				{`(no healthy upstream: [^ "]+:\d+)[^"]*`, "$1"},
				{`connection failed: [^"]*refused`, "REFUSED"},
			} {
				line = regexp.MustCompile(r.from).ReplaceAllString(line, r.to)
			}
			all = append(all, strings.ReplaceAll(strings.TrimSpace(line), "\t", " "))
		}
		if len(all) >= count || time.Now().After(deadline) {
			slices.Sort(all)
			return all
		}
	}
}

// TestRecordsAreIstios: the lines that Istio's ztunnel (afd0009e) wrote on one cluster with ours, for the same fates of a
// connection. test/interop compares again where its binary is at hand.
func TestRecordsAreIstios(t *testing.T) {
	w := newWorld(t)
	a, b, x := w.captured("a", "10.0.0.1"), w.captured("b", "10.0.0.2"), w.outside("x", "10.0.0.3")
	vip := w.service(b, "10.96.0.1")
	b.echo(9080)
	a.says(vip, "open the tunnel")
	const (
		src  = `src.addr=10.0.0.1 src.workload="a" src.namespace="default" src.identity="spiffe://cluster.local/ns/default/sa/a" src.cluster="Kubernetes" `
		dst  = ` dst.workload="b" dst.namespace="default" dst.identity="spiffe://cluster.local/ns/default/sa/b" dst.cluster="Kubernetes" `
		hop  = `dst.addr=10.0.0.2:15008 dst.hbone_addr=10.0.0.2:9080`
		svc  = ` dst.service="b.default.svc.cluster.local"`
		none = `bytes_sent=0 bytes_recv=0 duration `
	)
	denied := `error="connection closed due to policy rejection: explicitly denied by: default/no"`
	for _, tc := range []struct {
		name string
		do   func()
		want []string
	}{
		{"by service", func() { a.says(vip, "hello!") }, []string{
			`info access connection complete ` + src + hop + svc + dst + `direction="inbound" bytes_sent=6 bytes_recv=6 duration`,
			`info access connection complete ` + src + hop + svc + dst + `direction="outbound" bytes_sent=6 bytes_recv=6 duration`,
		}},
		{"by address", func() { a.says(b.at(9080), "hello!") }, []string{
			`info access connection complete ` + src + hop + svc + dst + `direction="inbound" bytes_sent=6 bytes_recv=6 duration`,
			`info access connection complete ` + src + hop + dst + `direction="outbound" bytes_sent=6 bytes_recv=6 duration`,
		}},
		{"no listener", func() { a.refused(b.at(9999)) }, []string{
			`error access connection complete ` + src + strings.Replace(hop, "9080", "9999", 1) + dst + `direction="inbound" ` + none + `error="REFUSED"`,
			`error access connection complete ` + src + strings.Replace(hop, "9080", "9999", 1) + dst + `direction="outbound" ` + none + `error="http status: 503 Service Unavailable"`,
		}},
		{"a port that the service has not", func() { a.refused(netip.AddrPortFrom(vip.Addr(), 81)) }, []string{
			`warn access connection failed src.addr=10.0.0.1 dst.addr=10.96.0.1:81 direction="outbound" error="no healthy upstream: 10.96.0.1:81"`,
		}},
		{"into the mesh", func() { x.says(b.at(9080), "hello!") }, []string{
			`info access connection complete src.addr=10.0.0.3 dst.addr=10.0.0.2:9080` + svc + ` dst.workload="b" dst.namespace="default" dst.cluster="Kubernetes" direction="inbound" bytes_sent=6 bytes_recv=6 duration`,
		}},
		{"denied", func() {
			w.policies(policy("no", authorization.Action_DENY, &authorization.Match{DestinationPorts: []uint32{9080}}))
			a.refused(vip)
		}, []string{
			`error access connection complete ` + src + hop + svc + dst + `direction="inbound" ` + none + denied,
			`error access connection complete ` + src + hop + svc + dst + `direction="outbound" ` + none + `error="http status: 401 Unauthorized"`,
		}},
		{"denied without identity", func() { x.refused(b.at(9080)) }, []string{
			`error access connection complete src.addr=10.0.0.3 dst.addr=10.0.0.2:9080` + svc + ` dst.workload="b" dst.namespace="default" dst.cluster="Kubernetes" direction="inbound" ` + none + denied,
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w.records(0, 2) // of the one before
			from := len(w.log.String())
			tc.do()
			if d := cmp.Diff(tc.want, w.records(from, len(tc.want))); d != "" {
				t.Errorf("-Istio's +ours:\n%s", d)
			}
		})
	}
}
