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
	} {
		t.Run(name, func(t *testing.T) {
			golden.Check(t, "testdata/"+name+".txt", text(capture.For(p)))
		})
	}
}

func TestHostRules(t *testing.T) {
	golden.Check(t, "testdata/host.txt", []byte(capture.Host([]netip.Addr{
		netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1"),
	}).String()+capture.Bridges().String()))
}
