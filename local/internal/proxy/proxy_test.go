package proxy

import (
	"flag"
	"net/netip"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/internal/testkit/netnstest"
	"github.com/ambit-mesh/ambit/linux/nft"
)

var update = flag.Bool("update", false, "rewrite golden files")

func TestMain(m *testing.M) { netnstest.Main(m) }

func load(t *testing.T, file string) (services []*corev1.Service, eps []*discoveryv1.EndpointSlice) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	all, err := kinds.Decode(file, text)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range all {
		switch o := l.Object.(type) {
		case *corev1.Service:
			services = append(services, o)
		case *discoveryv1.EndpointSlice:
			eps = append(eps, o)
		}
	}
	return services, eps
}

func TestRules(t *testing.T) {
	services, eps := load(t, "testdata/services.yaml")
	got := Rules("node-1", services, eps, []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd00::/112")}).String()
	const golden = "testdata/services.nft"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestTheKernelTakesTheRules(t *testing.T) {
	services, eps := load(t, "testdata/services.yaml")
	ns := netnstest.New(t)
	table := Rules("node-1", services, eps, []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd00::/112")})
	for range 2 { // the second time replaces the first
		if err := nft.Apply(ns, table); err != nil {
			t.Fatal(err)
		}
	}
	if diff, err := nft.Compare(ns, table); err != nil || len(diff) > 0 {
		t.Errorf("the kernel holds other rules: %v, %v", diff, err)
	}
}
