package proxy_test

import (
	"crypto/sha256"
	"crypto/x509"
	"io"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/api/authorization"
	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/identity/crl"
	"github.com/ambit-mesh/ambit/identity/mtls"
	"github.com/ambit-mesh/ambit/linux/nft"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/ztunnel/internal/proxy"
	"github.com/ambit-mesh/ambit/ztunnel/internal/state"
)

// neighbours lets connections between the world's pods go without tunnels. What comes to their tunnel ports is thrown
// away, so that none can go through one unnoticed.
func (w *world) neighbours(pods ...*pod) {
	w.t.Helper()
	byName := map[string]*proxy.Proxy{}
	for _, p := range pods {
		byName[p.name] = p.proxy
		w.must(nft.Apply(p.ns, nft.Table{Family: nft.INet, Name: "no-tunnels", Chains: []nft.Chain{
			{Name: "in", Type: nft.Filter, Hook: nft.Input, Rules: []nft.Rule{nft.If(nft.TCP(), nft.Dport(mesh.PortHBONE)).Then(nft.Drop())}},
		}}))
	}
	near := func(x *state.Workload) *proxy.Proxy { return byName[x.Name] }
	w.near.Store(&near)
}

// story is what happens in a mesh, told by its log without what differs each time.
func story(t *testing.T, near bool) []string {
	w := newWorld(t)
	ca := &revoking{CA: w.ca}
	ca.list.Store(&crl.List{})
	w.conf.Roots = ca
	a, b, c := w.captured("a", "10.0.0.1"), w.captured("b", "10.0.0.2"), w.captured("c", "10.0.0.3")
	if near {
		w.neighbours(a, b, c)
	}
	vip, own := w.service(b, "10.96.0.1"), w.service(a, "10.96.0.2")
	app := b.echo(9080)
	a.echo(9080)
	seen := func(who string, want netip.Addr) {
		w.over(a, b, c)
		if from := <-app.seen; from.Addr() != want {
			t.Errorf("%s: the application saw %s, want the client's own %s", who, from, want)
		}
	}

	a.says(vip, "by service")
	seen("by service", a.ip)
	a.says(b.at(9080), "by address")
	seen("by address", a.ip)
	a.says(own, "to itself")
	w.over(a, b, c)
	a.refused(b.at(9999)) // nobody listens

	w.policies(policy("only-a", authorization.Action_ALLOW, &authorization.Match{Principals: principals("cluster.local/ns/default/sa/a")}))
	before := app.conns.Load()
	c.refused(vip) // L4-01
	if n := app.conns.Load(); n != before {
		t.Errorf("the application got %d connections of a client that is denied", n-before)
	}
	a.says(vip, "still")
	seen("still", a.ip)

	open := a.dial(vip)
	if got := exchange(open, "open"); got != "open" {
		t.Fatal(got)
	}
	w.policies(policy("no-a", authorization.Action_DENY, &authorization.Match{Principals: principals("cluster.local/ns/default/sa/a")}))
	if _, err := open.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("a connection that a new policy denies: %v, want a reset", err)
	}
	a.refused(vip)
	w.must(w.store.ApplyPolicies(state.Policies{Remove: []string{"default/no-a", "default/only-a"}}))

	w.workload(b, func(x *workload.Workload) { x.AuthorizationPolicies = []string{"default/absent"} })
	a.refused(vip)
	w.workload(b)

	open = a.dial(vip)
	if got := exchange(open, "open"); got != "open" {
		t.Fatal(got)
	}
	ca.revoke(t, a.id()) // ID-16
	for _, p := range []*pod{a, b} {
		p.proxy.Recheck(func(chain []*x509.Certificate) error { return mtls.Recheck(chain, ca) })
	}
	if _, err := open.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("a connection whose client is revoked: %v, want a reset", err)
	}
	for _, p := range []*pod{a, b, c} {
		p.stop()
	}
	return chapters(w.log.String())
}

// chapters are the lines of the access log, sorted, with what differs each time left out.
func chapters(log string) []string {
	for _, x := range [][2]string{
		{`^\S+\s+`, ""},                              // time
		{`:\d{4,5}\b`, ":PORT"},                      // the client's and others
		{`duration="[^"]*"`, "duration"},             //
		{`serial number [0-9a-f]+`, "serial number"}, //
		{`error="(application to tunnel|tunnel to application|accept the tunnel): [^"]*"`, "error: broken"}, // whichever was seen first
	} {
		re := regexp.MustCompile("(?m)" + x[0])
		log = re.ReplaceAllString(log, x[1])
	}
	var out []string
	for line := range strings.Lines(log) {
		if strings.Contains(line, "access") {
			out = append(out, strings.TrimSpace(line))
		}
	}
	slices.Sort(out)
	return out
}

func TestNeighboursAreServedAsThroughTunnels(t *testing.T) { // L4-14
	var far, near []string
	t.Run("through tunnels", func(t *testing.T) { far = story(t, false) })
	t.Run("without", func(t *testing.T) { near = story(t, true) })
	if diff := cmp.Diff(far, near); diff != "" {
		t.Errorf("through tunnels (-) and without (+) the logs differ:\n%s", diff)
	}
	if len(far) < 20 {
		t.Errorf("only %d lines were compared:\n%s", len(far), strings.Join(far, "\n"))
	}
}

func TestNeighbourMustHaveTheAddress(t *testing.T) {
	w := newWorld(t)
	a, b, x := w.captured("a", "10.0.0.1"), w.captured("b", "10.0.0.2"), w.outside("x", "10.0.0.9")
	w.neighbours(a, b)
	app := x.echo(9080)
	// The control plane still knows b under an address that another pod has by now.
	w.workload(b, func(w *workload.Workload) { w.Addresses = [][]byte{x.ip.AsSlice()} })
	a.refused(x.at(9080))
	if n := app.conns.Load(); n != 0 {
		t.Errorf("another pod's application got %d connections that were meant for b", n)
	}
}

func TestHalfCloseIsKeptBetweenNeighbours(t *testing.T) { // HB-12
	w := newWorld(t)
	a, b := w.captured("a", "10.0.0.1"), w.captured("b", "10.0.0.2")
	w.neighbours(a, b)
	big := make([]byte, 3<<20)
	for i := range big {
		big[i] = byte(i * 11)
	}
	b.listen(9080, func(c *net.TCPConn) {
		if _, err := io.Copy(io.Discard, c); err != nil { // until the client's end
			return
		}
		_, _ = c.Write(big) // the client counts
	})
	c := a.dial(b.at(9080))
	_, err := io.WriteString(c, "question")
	w.must(err)
	w.must(c.CloseWrite())
	got, err := io.ReadAll(c)
	w.must(err)
	if sha256.Sum256(got) != sha256.Sum256(big) {
		t.Errorf("%d bytes came, want %d", len(got), len(big))
	}
	w.want("connection complete", `direction="inbound"`, "bytes_sent=3145728", "bytes_recv=8")
	w.want("connection complete", `direction="outbound"`, "bytes_sent=8", "bytes_recv=3145728")
}
