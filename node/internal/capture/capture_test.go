package capture_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/internal/testkit/golden"
	"github.com/ambit-mesh/ambit/node/internal/capture"
)

func text(r capture.Rules) []byte {
	var b strings.Builder
	for _, t := range r.Tables {
		b.WriteString(t.String())
	}
	for _, m := range r.Marks {
		fmt.Fprintf(&b, "rule %s\n", m)
	}
	for _, o := range r.Routes {
		fmt.Fprintf(&b, "route %s\n", o)
	}
	return []byte(b.String())
}

// The files are WIRE 2.7 in the words of nft.
func TestRules(t *testing.T) {
	for name, p := range map[string]capture.Pod{
		"plain":          {},
		"v6":             {V6: true},
		"dns":            {DNS: true, V6: true},
		"bypass-inbound": {BypassInbound: true, V6: true},
		"virtual":        {Virtual: "k6t-eth0,k6t-eth1", V6: true},
		"probes-node":    {V6: true, Probes: capture.Source{V4: netip.MustParseAddr("192.0.2.7"), V6: netip.MustParseAddr("2001:db8::7")}},
	} {
		t.Run(name, func(t *testing.T) {
			golden.Check(t, "testdata/"+name+".txt", text(capture.For(p)))
		})
	}
}

func TestHostRules(t *testing.T) {
	for name, source := range map[string]capture.Source{
		"host":      {},
		"host-node": {V4: netip.MustParseAddr("192.0.2.7")}, // of a node whose pods have IPv6 and it has not
	} {
		golden.Check(t, "testdata/"+name+".txt", []byte(source.Host([]netip.Addr{
			netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1"),
		}).String()+source.Bridges().String()))
	}
}

func TestParseSource(t *testing.T) {
	for _, c := range []struct {
		word, node string
		want       capture.Source
		fails      bool
	}{
		{},
		{word: "link-local", node: "192.0.2.7"},
		{word: "node", node: "192.0.2.7,2001:db8::7", want: capture.Source{V4: netip.MustParseAddr("192.0.2.7"), V6: netip.MustParseAddr("2001:db8::7")}},
		{word: "node", node: "2001:db8::7", want: capture.Source{V6: netip.MustParseAddr("2001:db8::7")}},
		{word: "node", fails: true},
		{word: " 192.0.2.9 ", want: capture.Source{V4: netip.MustParseAddr("192.0.2.9")}},
		{word: "::ffff:192.0.2.9", want: capture.Source{V4: netip.MustParseAddr("192.0.2.9")}},
		{word: "192.0.2.9,192.0.2.10", fails: true},
		{word: "127.0.0.1", fails: true},
		{word: "0.0.0.0", fails: true},
		{word: "kubelet", fails: true},
	} {
		got, err := capture.ParseSource(c.word, c.node)
		if got != c.want || (err != nil) != c.fails {
			t.Errorf("ParseSource(%q, %q) = %v, %v", c.word, c.node, got, err)
		}
	}
}
