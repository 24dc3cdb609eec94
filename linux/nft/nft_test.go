package nft_test

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/internal/testkit/netnstest"
	"github.com/ambit-mesh/ambit/linux/link"
	"github.com/ambit-mesh/ambit/linux/nft"
	"github.com/ambit-mesh/ambit/linux/sock"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func prefix(s string) netip.Prefix     { return netip.MustParsePrefix(s) }
func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// everything has each match and action once.
func everything() nft.Table {
	v4 := nft.Set{Name: "v4", Kind: nft.AddrsV4, Elements: []netip.Prefix{prefix("10.0.0.1/32"), prefix("10.0.0.2/32")}}
	v6 := nft.Set{Name: "v6", Kind: nft.AddrsV6, Elements: []netip.Prefix{prefix("fd00::1/128")}}
	nets := nft.Set{Name: "nets", Kind: nft.PrefixesV4, Elements: []netip.Prefix{prefix("10.1.0.0/16"), prefix("255.0.0.0/8")}}
	live := nft.Set{Name: "live", Kind: nft.AddrsV4, Live: true}
	return nft.Table{Family: nft.INet, Name: "everything", Sets: []nft.Set{v4, v6, nets, live}, Chains: []nft.Chain{
		{Name: "raw", Type: nft.Filter, Hook: nft.Output, Priority: nft.PriorityRaw, Rules: []nft.Rule{
			nft.If(nft.UDP(), nft.Dport(53), nft.Mark(0x539, 0xfff)).Then(nft.SetCTZone(1)),
			nft.If(nft.UDP(), nft.Sport(9)).Then(nft.NoTrack()),
		}},
		{Name: "mangle", Type: nft.Reroute, Hook: nft.Output, Priority: nft.PriorityMangle, Rules: []nft.Rule{
			nft.If(nft.NotMark(1, 0xf)).Then(nft.SetMarkBits(1, 0xf)),
			nft.If(nft.NotCTMark(1, 0xf)).Then(nft.SetCTMarkBits(1, 0xf)),
			nft.If(nft.CTMark(0x111, 0xfff)).Then(nft.MarkFromCT()),
			nft.If(nft.V6()).Then(nft.SetMark(7)),
		}},
		{Name: "pre", Type: nft.NAT, Hook: nft.Prerouting, Priority: nft.PriorityDNAT, Rules: []nft.Rule{
			nft.If(nft.Saddr(prefix("10.3.0.0/20")), nft.NotDaddr(prefix("127.0.0.1/32")), nft.TCP(), nft.NotDport(15008)).Then(nft.Redirect(15006)),
			nft.If(nft.DaddrIn(v4), nft.TCP(), nft.Dport(80)).Then(nft.DNAT(addrPort("10.9.9.9:8080"))),
			nft.If(nft.DaddrIn(v6), nft.TCP(), nft.Dport(80)).Then(nft.DNAT(addrPort("[fd00::9]:8080"), addrPort("[fd00::8]:8080"))),
			nft.If(nft.NotSaddrIn(nets), nft.DaddrLocal(), nft.InIface("eth0"), nft.TCP(), nft.Dport(443)).
				Then(nft.DNAT(addrPort("10.9.9.9:1"), addrPort("10.9.9.8:2"))).Comment("node port"),
		}},
		{Name: "post", Type: nft.NAT, Hook: nft.Postrouting, Priority: nft.PrioritySNAT, Rules: []nft.Rule{
			nft.If(nft.SocketOwned(), nft.SocketUser(0), nft.TCP(), nft.DaddrIn(live)).Then(nft.SNAT(netip.MustParseAddr("169.254.7.127"))),
			nft.If(nft.NotOutIface("lo"), nft.SaddrIn(nets), nft.NotDaddrIn(nets)).Then(nft.Masquerade()),
			nft.If(nft.NotInIface("eth9"), nft.OutIface("eth1"), nft.NotSaddr(prefix("fd00::/8"))).Then(nft.SNAT(netip.MustParseAddr("fd00::5"))),
		}},
		{Name: "in", Type: nft.Filter, Hook: nft.Input, Priority: nft.PriorityFilter, Drop: true, Rules: []nft.Rule{
			nft.If(nft.CTState(nft.StateEstablished | nft.StateRelated)).Then(nft.Accept()),
			nft.If(nft.TCP()).Then(nft.Jump("tcp")),
			nft.If(nft.V4()).Then(nft.Reject()),
			nft.If().Then(nft.Drop()),
		}},
		{Name: "tcp", Rules: []nft.Rule{
			nft.If(nft.TCP(), nft.SYN(), nft.Dport(1)).Then(nft.RejectReset()),
			nft.If().Then(nft.Return()),
		}},
	}}
}

func TestWhatIsAppliedIsWhatTheKernelLists(t *testing.T) {
	ns := netnstest.New(t)
	if d, err := nft.Compare(ns, everything()); err != nil || len(d) == 0 {
		t.Fatalf("Compare before Apply = %v, %v, want what is missing", d, err)
	}
	for range 2 { // again: replaced, not added to
		must(t, nft.Apply(ns, everything()))
		d, err := nft.Compare(ns, everything())
		must(t, err)
		if len(d) > 0 {
			t.Fatalf("kernel differs:\n%s", strings.Join(d, "\n"))
		}
	}
	must(t, nft.Delete(ns, everything()))
	must(t, nft.Delete(ns, everything()))
	l, err := nft.List(ns, everything())
	if err != nil || l != nil {
		t.Errorf("List after Delete = %v, %v, want nothing", l, err)
	}
}

func TestBridgeTable(t *testing.T) {
	ns := netnstest.New(t)
	table := nft.Table{Family: nft.Bridge, Name: "frames", Chains: []nft.Chain{{
		Name: "pre", Type: nft.Filter, Hook: nft.Prerouting, Priority: nft.PriorityRaw, Rules: []nft.Rule{
			nft.If(nft.Saddr(prefix("169.254.7.127/32"))).Then(nft.Drop()),
			nft.If(nft.Saddr(prefix("fd00::1/128"))).Then(nft.Drop()),
		},
	}}}
	for range 2 {
		must(t, nft.Apply(ns, table))
		if d, err := nft.Compare(ns, table); err != nil || len(d) > 0 {
			t.Fatalf("kernel differs: %v, %v", d, err)
		}
	}
	if names, err := nft.Names(ns); err != nil || len(names) != 1 || names[0] != "bridge frames" {
		t.Errorf("tables %v, %v", names, err)
	}
	must(t, nft.Delete(ns, table))
}

func TestTamperingShows(t *testing.T) {
	base := func() nft.Table { return everything() }
	for name, tamper := range map[string]func(*nft.Table){
		"a rule is gone": func(t *nft.Table) { t.Chains[2].Rules = t.Chains[2].Rules[1:] },
		"a rule is put before": func(t *nft.Table) {
			t.Chains[2].Rules = slices.Insert(t.Chains[2].Rules, 0, nft.If().Then(nft.Accept()))
		},
		"rules change places":    func(t *nft.Table) { r := t.Chains[2].Rules; r[0], r[1] = r[1], r[0] },
		"a port differs":         func(t *nft.Table) { t.Chains[2].Rules[0] = nft.If(nft.TCP()).Then(nft.Redirect(15007)) },
		"a set element is added": func(t *nft.Table) { t.Sets[0].Elements = append(t.Sets[0].Elements, prefix("10.7.7.7/32")) },
		"a policy differs":       func(t *nft.Table) { t.Chains[4].Drop = false },
		"a chain is added":       func(t *nft.Table) { t.Chains = append(t.Chains, nft.Chain{Name: "more"}) },
		"a chain runs earlier":   func(t *nft.Table) { t.Chains[3].Priority-- },
		"a target of many differs": func(t *nft.Table) {
			t.Chains[2].Rules[2] = nft.If(nft.DaddrIn(t.Sets[1]), nft.TCP(), nft.Dport(80)).Then(nft.DNAT(addrPort("[fd00::9]:8080"), addrPort("[fd00::7]:8080")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			ns := netnstest.New(t)
			other := everything()
			tamper(&other)
			must(t, nft.Apply(ns, other))
			d, err := nft.Compare(ns, base())
			if err != nil || len(d) == 0 {
				t.Fatalf("Compare = %v, %v, want a difference", d, err)
			}
			must(t, nft.Apply(ns, base()))
			if d, err := nft.Compare(ns, base()); err != nil || len(d) != 0 {
				t.Fatalf("after repair Compare = %v, %v, want none", d, err)
			}
		})
	}
}

func TestLiveSetChangesWithoutADifference(t *testing.T) {
	ns := netnstest.New(t)
	must(t, nft.Apply(ns, everything()))
	a, b := netip.MustParseAddr("10.5.0.1"), netip.MustParseAddr("10.5.0.2")
	must(t, nft.AddAddrs(ns, everything(), "live", a, b))
	must(t, nft.AddAddrs(ns, everything(), "live", a))
	must(t, nft.DeleteAddrs(ns, everything(), "live", b))
	must(t, nft.DeleteAddrs(ns, everything(), "live", b))
	got, err := nft.Addrs(ns, everything(), "live")
	if err != nil || !slices.Equal(got, []netip.Addr{a}) {
		t.Errorf("Addrs = %v, %v, want [%s]", got, err, a)
	}
	if d, err := nft.Compare(ns, everything()); err != nil || len(d) != 0 {
		t.Errorf("Compare = %v, %v, want none", d, err)
	}
	if err := nft.AddAddrs(ns, everything(), "none", a); err == nil {
		t.Error("AddAddrs to a set that is not there = nil, want an error")
	}
}

func TestFailedApplyChangesNothing(t *testing.T) {
	ns := netnstest.New(t)
	must(t, nft.Apply(ns, everything()))
	bad := nft.Table{Family: nft.INet, Name: "everything", Chains: []nft.Chain{{Name: "a", Rules: []nft.Rule{nft.If().Then(nft.Jump("nowhere"))}}}}
	if err := nft.Apply(ns, bad); err == nil {
		t.Fatal("Apply of a jump to nowhere = nil, want an error")
	}
	if d, err := nft.Compare(ns, everything()); err != nil || len(d) != 0 {
		t.Errorf("Compare = %v, %v, want the old table whole", d, err)
	}
}

func TestImpossibleRulesAreRefusedWithTheReason(t *testing.T) {
	one := func(r nft.Rule) nft.Table {
		return nft.Table{Name: "t", Chains: []nft.Chain{{Name: "c", Rules: []nft.Rule{r}}}}
	}
	for want, table := range map[string]nft.Table{
		"IPv4 and IPv6 in one rule": one(nft.If(nft.Saddr(prefix("10.0.0.0/8"))).Then(nft.SNAT(netip.MustParseAddr("fd00::1")))),
		"has no set x":              one(nft.If(nft.DaddrIn(nft.Set{Name: "x"}))),
		"dnat without a target":     one(nft.If().Then(nft.DNAT())),
		"of another family than":    one(nft.If().Then(nft.DNAT(addrPort("10.0.0.1:1"), addrPort("[fd00::1]:1")))),
		"is of the other family":    {Name: "t", Sets: []nft.Set{{Name: "s", Elements: []netip.Prefix{prefix("fd00::1/128")}}}},
		"is not one address":        {Name: "t", Sets: []nft.Set{{Name: "s", Elements: []netip.Prefix{prefix("10.0.0.0/8")}}}},
	} {
		if _, err := nft.Compare(nil, table); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

func TestServiceIsBalancedOverItsEndpoints(t *testing.T) {
	for family, hosts := range map[nft.Family][2]string{nft.IPv4: {"127.0.0.1", "127.9.9.9"}, nft.INet: {"::1", "fd00::96"}} {
		t.Run(family.String(), func(t *testing.T) {
			ns := netnstest.New(t)
			vip := netip.AddrPortFrom(netip.MustParseAddr(hosts[1]), 80)
			must(t, link.AddAddr(ns, "lo", nft.Host(vip.Addr()))) // so that there is a route
			hits := make(chan int, 100)
			var endpoints []netip.AddrPort
			for i := range 2 {
				l, err := sock.Listen(ns, netip.AddrPortFrom(netip.MustParseAddr(hosts[0]), 0), sock.Options{})
				must(t, err)
				endpoints = append(endpoints, l.Addr().(*net.TCPAddr).AddrPort())
				go func() {
					for c, err := l.Accept(); err == nil; c, err = l.Accept() {
						hits <- i
						_ = c.Close()
					}
				}()
				t.Cleanup(func() { _ = l.Close() })
			}
			must(t, nft.Apply(ns, nft.Table{Family: family, Name: "proxy", Chains: []nft.Chain{{
				Name: "out", Type: nft.NAT, Hook: nft.Output, Priority: nft.PriorityDNAT,
				Rules: []nft.Rule{nft.If(nft.Daddr(nft.Host(vip.Addr())), nft.TCP(), nft.Dport(vip.Port())).Then(nft.DNAT(endpoints...))},
			}}}))
			seen := map[int]int{}
			for range 60 { // all at one endpoint by chance: 1 in 2^59
				c, err := sock.Dial(t.Context(), ns, netip.AddrPort{}, vip, sock.Options{})
				must(t, err)
				must(t, c.Close())
				seen[<-hits]++
			}
			if len(seen) != 2 {
				t.Errorf("connections per endpoint = %v, want some at each of two", seen)
			}
		})
	}
}

func TestTableReadsAsInTheWordsOfNft(t *testing.T) {
	table := nft.Table{Name: "demo", Sets: []nft.Set{{Name: "s", Kind: nft.PrefixesV4, Elements: []netip.Prefix{prefix("10.0.0.0/8")}}}, Chains: []nft.Chain{{
		Name: "pre", Type: nft.NAT, Hook: nft.Prerouting, Priority: -100,
		Rules: []nft.Rule{nft.If(nft.NotDaddr(prefix("127.0.0.1/32")), nft.TCP(), nft.NotDport(15008), nft.NotMark(0x539, 0xfff)).Then(nft.Redirect(15006))},
	}}}
	want := `table inet demo {
	set s {
		type ipv4_addr
		flags interval
		elements = { 10.0.0.0/8 }
	}
	chain pre {
		type nat hook prerouting priority -100; policy accept;
		ip daddr != 127.0.0.1 meta l4proto tcp th dport != 15008 meta mark & 0xfff != 0x539 redirect to :15006
	}
}
`
	if d := cmp.Diff(want, table.String()); d != "" {
		t.Errorf("String (-want +got):\n%s", d)
	}
}
