package link_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ambit-mesh/ambit/internal/testkit/netnstest"
	"github.com/ambit-mesh/ambit/linux/link"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestVethPairAcrossNamespacesOnABridge(t *testing.T) {
	node, pod := netnstest.New(t), netnstest.New(t)
	must(t, link.AddBridge(node, "br0", netip.MustParsePrefix("10.1.0.1/24")))
	must(t, link.AddBridge(node, "br0", netip.MustParsePrefix("10.1.0.1/24"))) // again
	must(t, link.AddVeth(link.Veth{NS: node, Name: "veth1", PeerNS: pod, Peer: "eth0", Bridge: "br0", MTU: 1400}))
	must(t, link.Up(node, "veth1"))
	must(t, link.Hairpin(node, "veth1", true))
	must(t, link.Up(pod, "eth0"))
	for _, p := range []string{"10.1.0.2/24", "fd00::2/64"} {
		must(t, link.AddAddr(pod, "eth0", netip.MustParsePrefix(p)))
		must(t, link.AddAddr(pod, "eth0", netip.MustParsePrefix(p)))
	}
	must(t, link.AddRoute(pod, link.Route{To: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("10.1.0.1"), Link: "eth0"}))

	addrs, err := link.Addrs(pod)
	must(t, err)
	var got []string
	for _, a := range addrs {
		if !a.Prefix.Addr().IsLinkLocalUnicast() {
			got = append(got, a.Link+" "+a.Prefix.String())
		}
	}
	want := []string{"lo 127.0.0.1/8", "lo ::1/128", "eth0 10.1.0.2/24", "eth0 fd00::2/64"}
	if d := cmp.Diff(want, got, cmpopts.SortSlices(func(a, b string) bool { return a < b })); d != "" {
		t.Errorf("Addrs (-want +got):\n%s", d)
	}

	must(t, link.Delete(pod, "eth0"))
	must(t, link.Delete(pod, "eth0")) // again
	if there, err := link.Exists(node, "veth1"); err != nil || there {
		t.Errorf("after its peer's end Exists(veth1) = %v, %v, want false", there, err)
	}
}

func TestPolicyRoutingIsRepeatable(t *testing.T) {
	ns := netnstest.New(t)
	for _, v6 := range []bool{false, true} {
		rule := link.Rule{V6: v6, Mark: 0x111, Mask: 0xfff, Priority: 32764, Table: 100}
		route := link.Route{To: netip.MustParsePrefix("0.0.0.0/0"), Link: "lo", Table: 100, Local: true}
		if v6 {
			route.To = netip.MustParsePrefix("::/0")
		}
		check := func(want bool) {
			t.Helper()
			r, err := link.HasRule(ns, rule)
			must(t, err)
			o, err := link.HasRoute(ns, route)
			must(t, err)
			if r != want || o != want {
				t.Errorf("v6=%v: HasRule = %v, HasRoute = %v, want %v", v6, r, o, want)
			}
		}
		check(false)
		for range 2 {
			must(t, link.AddRule(ns, rule))
			must(t, link.AddRoute(ns, route))
			check(true)
		}
		for range 2 {
			must(t, link.DeleteRule(ns, rule))
			must(t, link.DeleteRoute(ns, route))
			check(false)
		}
	}
}

func TestSysctlIsTheNamespaces(t *testing.T) {
	a, b := netnstest.New(t), netnstest.New(t)
	must(t, link.SetSysctl(a, "ipv4/ip_forward", "1"))
	must(t, link.SetSysctl(b, "ipv4/ip_forward", "0"))
	for ns, want := range map[string]string{"a": "1", "b": "0"} {
		h := a
		if ns == "b" {
			h = b
		}
		if got, err := link.Sysctl(h, "ipv4/ip_forward"); err != nil || got != want {
			t.Errorf("ip_forward of %s = %q, %v, want %q", ns, got, err, want)
		}
	}
}
