package dns

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// known is a mesh where every client sees the same names, but those of a namespace: "name@namespace".
type known map[string]string

func (k known) Named(host, namespace string) ([]netip.Addr, bool) {
	list, ok := k[host+"@"+namespace]
	if !ok {
		list, ok = k[host]
	}
	var out []netip.Addr
	for _, a := range strings.Fields(list) {
		out = append(out, netip.MustParseAddr(a))
	}
	return out, ok
}

func TestLookup(t *testing.T) {
	names := known{
		"web.default.svc.cluster.local":     "10.96.0.7 fd00::7",
		"web.other.svc.cluster.local":       "10.96.0.8",
		"api.example.com":                   "240.240.0.1",
		"*.example.com":                     "240.240.0.2",
		"*.wild.example.com":                "240.240.0.3",
		"empty.default.svc.cluster.local":   "",
		"db-0.db.default.svc.cluster.local": "10.244.0.9",
	}
	for _, tc := range []struct{ name, ask, want, alias string }{
		{name: "the full name", ask: "web.default.svc.cluster.local.", want: "10.96.0.7 fd00::7"},
		{name: "in any case", ask: "WEB.Default.svc.Cluster.local.", want: "10.96.0.7 fd00::7"},
		{name: "a short name is one of the client's namespace", ask: "web.", want: "10.96.0.7 fd00::7"},
		{name: "name and namespace", ask: "web.other.", want: "10.96.0.8"},
		{name: "name, namespace and svc", ask: "web.other.svc.", want: "10.96.0.8"},
		{name: "a full name under the resolver's first search domain", ask: "web.other.svc.cluster.local.default.svc.cluster.local.", want: "10.96.0.8", alias: "web.other.svc.cluster.local"},
		{name: "name and namespace under a search domain", ask: "web.other.default.svc.cluster.local.", want: "10.96.0.8", alias: "web.other"},
		{name: "a name outside under a search domain", ask: "api.example.com.svc.cluster.local.", want: "240.240.0.1", alias: "api.example.com"},
		{name: "a name outside under the last search domain", ask: "api.example.com.cluster.local.", want: "240.240.0.1", alias: "api.example.com"},
		{name: "a wildcard", ask: "x.example.com.", want: "240.240.0.2"},
		{name: "a wildcard covers many labels", ask: "a.b.example.com.", want: "240.240.0.2"},
		{name: "the narrowest wildcard wins", ask: "a.wild.example.com.", want: "240.240.0.3"},
		{name: "the name itself before a wildcard", ask: "api.example.com.", want: "240.240.0.1"},
		{name: "a wildcard under a search domain", ask: "x.example.com.default.svc.cluster.local.", want: "240.240.0.2"},
		{name: "a pod and its own service", ask: "db-0.db.", want: "10.244.0.9"},
		{name: "a pod, its service and namespace", ask: "db-0.db.default.", want: "10.244.0.9"},
		{name: "a pod, its service, namespace and svc", ask: "db-0.db.default.svc.", want: "10.244.0.9"},
		{name: "a pod under a search domain", ask: "db-0.db.default.svc.cluster.local.", want: "10.244.0.9"},
		{name: "a service without endpoints is known", ask: "empty.", want: ""},
		{name: "a wildcard does not cover its own parent", ask: "example.com.", want: "none"},
		{name: "a name that nobody knows", ask: "nobody.default.svc.cluster.local.", want: "none"},
		{name: "the root", ask: ".", want: "none"},
		{name: "a search domain itself", ask: "default.svc.cluster.local.", want: "none"},
		{name: "a suffix that is no label", ask: "notexample.com.", want: "none"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, ok := lookup(names, client{Namespace: "default", Domain: "cluster.local"}, tc.ask)
			if tc.want == "none" {
				if ok {
					t.Fatalf("found %+v", got)
				}
				return
			}
			want := found{Alias: tc.alias}
			want.Addrs, _ = known{"x": tc.want}.Named("x", "")
			if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty()); !ok || d != "" {
				t.Errorf("known %v, -want +got\n%s", ok, d)
			}
		})
	}
}

func TestServers(t *testing.T) {
	got, err := Servers(strings.NewReader("# a comment\nsearch x\nnameserver 10.96.0.10\nnameserver words\nnameserver fd00::10 \noptions ndots:5\nnameserver 1.1.1.1\nnameserver 2.2.2.2\n"))
	want := []netip.AddrPort{netip.MustParseAddrPort("10.96.0.10:53"), netip.MustParseAddrPort("[fd00::10]:53"), netip.MustParseAddrPort("1.1.1.1:53")}
	if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.AddrPort{})); err != nil || d != "" {
		t.Errorf("%v, -want +got\n%s", err, d)
	}
}
