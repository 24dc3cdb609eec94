package redirect_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/ambit-mesh/ambit/internal/testkit/netnstest"
	"github.com/ambit-mesh/ambit/linux/link"
	"github.com/ambit-mesh/ambit/node/internal/redirect"
)

// Pods with a network card of AWS's own are routed out of the node and back: their probes are led straight to them.
func TestProbesOfPodsWithABranchInterface(t *testing.T) {
	netnstest.Need(t)
	families(t, func(t *testing.T, v6 bool) {
		pod, other, gone := netip.MustParseAddr("10.7.0.9"), netip.MustParseAddr("10.7.0.10"), netip.MustParseAddr("10.7.0.11")
		if v6 {
			pod, other, gone = netip.MustParseAddr("fd07::9"), netip.MustParseAddr("fd07::10"), netip.MustParseAddr("fd07::11")
		}
		must(t, link.SetSysctl(nil, "ipv4/tcp_early_demux", "0"))
		t.Cleanup(func() { must(t, link.SetSysctl(nil, "ipv4/tcp_early_demux", "1")) })
		before := rules(t, v6)
		whole := func(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
		for i, a := range []netip.Addr{pod, gone} { // as AWS's plugin does
			name, table := []string{"vlan1", "vlan2"}[i], 101+i
			must(t, link.AddVeth(link.Veth{Name: name, Peer: name + "p"}))
			must(t, link.Up(nil, name))
			must(t, link.Up(nil, name+"p"))
			must(t, link.AddRoute(nil, link.Route{To: whole(a), Link: name, Table: table}))
			must(t, link.AddRule(nil, link.Rule{V6: v6, In: name, Priority: 10, Table: table}))
			t.Cleanup(func() {
				must(t, link.DeleteRule(nil, link.Rule{V6: v6, In: name, Priority: 10, Table: table}))
				must(t, link.Delete(nil, name))
			})
		}
		awss := rules(t, v6)
		want := func(a netip.Addr, in string, table int) []link.Rule {
			return []link.Rule{{V6: v6, To: whole(a), Priority: 512, Table: table}, {V6: v6, In: in, Priority: 9, Table: link.TableLocal}}
		}
		var p redirect.Probes
		_, err := p.Ensure()
		must(t, err)
		for range 2 {
			must(t, p.Add(pod, other))
			if got := added(rules(t, v6), awss); !slices.Equal(got, sorted(want(pod, "vlan1", 101))) {
				t.Fatalf("rules %v, want %v", got, want(pod, "vlan1", 101))
			}
		}
		must(t, p.Delete(pod))
		if got := added(rules(t, v6), awss); len(got) > 0 {
			t.Errorf("left of a pod that ended: %v", got)
		}

		must(t, p.Add(pod, gone))
		must(t, link.DeleteRoute(nil, link.Route{To: whole(gone), Link: "vlan2", Table: 102})) // it ends while no agent runs
		var next redirect.Probes
		_, err = next.Ensure()
		must(t, err)
		must(t, next.Add(pod))
		must(t, next.Prune())
		if got := added(rules(t, v6), awss); !slices.Equal(got, sorted(want(pod, "vlan1", 101))) {
			t.Errorf("after a restart: %v", got)
		}
		var last redirect.Probes
		must(t, last.Remove())
		if got := added(rules(t, v6), awss); len(got) > 0 {
			t.Errorf("CN-16: left: %v", got)
		}
		if len(awss) != len(before)+2 {
			t.Errorf("this test cannot fail: %v, %v", before, awss)
		}
	})
}

func rules(t *testing.T, v6 bool) []link.Rule {
	t.Helper()
	all, err := link.Rules(nil, v6)
	must(t, err)
	return all
}

func added(now, before []link.Rule) []link.Rule {
	return sorted(slices.DeleteFunc(slices.Clone(now), func(r link.Rule) bool { return slices.Contains(before, r) }))
}

func sorted(all []link.Rule) []link.Rule {
	slices.SortFunc(all, func(a, b link.Rule) int { return a.Priority - b.Priority })
	return all
}
