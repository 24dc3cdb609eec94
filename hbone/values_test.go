package hbone_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/hbone"
)

func TestForwarded(t *testing.T) {
	f := hbone.Forwarded{For: netip.MustParseAddrPort("10.0.0.1:4711"), Host: "web.default.svc.cluster.local"}
	if got, want := f.String(), `for="10.0.0.1:4711";host=web.default.svc.cluster.local`; got != want {
		t.Errorf("String() = %s, want %s", got, want)
	}
	cases := []struct {
		in   string
		want hbone.Forwarded
		ok   bool
	}{
		{f.String(), f, true},
		{`for="[2001:db8::1]:80"`, hbone.Forwarded{For: netip.MustParseAddrPort("[2001:db8::1]:80")}, true},
		{`proto=http; For=10.0.0.2;by=x, for=10.0.0.3`, hbone.Forwarded{For: netip.MustParseAddrPort("10.0.0.2:0")}, true},
		{`host=a`, hbone.Forwarded{}, false},
		{`for=unknown`, hbone.Forwarded{}, false},
		{"for=10.0.0.1;host=a\r\nx: y", hbone.Forwarded{For: netip.MustParseAddrPort("10.0.0.1:0")}, true},
	}
	for _, c := range cases {
		got, err := hbone.ParseForwarded(c.in)
		if (err == nil) != c.ok || got != c.want {
			t.Errorf("ParseForwarded(%q) = %+v, %v; want %+v, ok %v", c.in, got, err, c.want, c.ok)
		}
	}
}

func TestBaggage(t *testing.T) {
	b := hbone.Baggage{Cluster: "Kubernetes", Namespace: "default", Kind: "deployment", Workload: "sleep", Service: "sleep", Revision: "v1", Region: "r", Zone: "z"}
	want := "k8s.cluster.name=Kubernetes,k8s.namespace.name=default,k8s.deployment.name=sleep,service.name=sleep,service.version=v1,cloud.region=r,cloud.availability_zone=z"
	if b.String() != want {
		t.Errorf("String() = %s, want %s", b, want)
	}
	odd := hbone.Baggage{Service: `a,b;c "d"%`}
	for _, b := range []hbone.Baggage{b, odd, {Namespace: "x"}} {
		got, err := hbone.ParseBaggage(b.String())
		if diff := cmp.Diff(b, got); err != nil || diff != "" {
			t.Errorf("ParseBaggage(%q): %v %s", b, err, diff)
		}
	}
	got, err := hbone.ParseBaggage("x, k8s.pod.name = p ;prop=1 ,k8s.secret.name=s,service.name=%zz")
	if diff := cmp.Diff(hbone.Baggage{Kind: "pod", Workload: "p"}, got); err != nil || diff != "" {
		t.Errorf("lenient: %v %s", err, diff)
	}
}

func TestTraceparent(t *testing.T) {
	p := hbone.NewTraceparent()
	if got, err := hbone.ParseTraceparent(p.String()); err != nil || got != p {
		t.Errorf("ParseTraceparent(%s) = %v, %v", p, got, err)
	}
	if c := p.Child(); c.Trace != p.Trace || c.Span == p.Span {
		t.Errorf("child %s of %s", c, p)
	}
	for _, bad := range []string{
		"", "00-00000000000000000000000000000000-00f067aa0ba902b7-00", "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-00",
		"ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", "00-4BF92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
		"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-x", "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-00",
	} {
		if got, err := hbone.ParseTraceparent(bad); err == nil {
			t.Errorf("ParseTraceparent(%q) = %v, want an error", bad, got)
		}
	}
}

func FuzzForwarded(f *testing.F) {
	f.Add(`for="10.0.0.1:4711";host=web`)
	f.Add(`for="[::1]:80",for=x`)
	f.Fuzz(func(t *testing.T, s string) {
		if got, err := hbone.ParseForwarded(s); err == nil {
			if again, err := hbone.ParseForwarded(got.String()); err != nil || again != got {
				t.Errorf("%q gives %+v, which gives %+v, %v", s, got, again, err)
			}
		}
	})
}

func FuzzBaggage(f *testing.F) {
	f.Add("k8s.cluster.name=c,k8s.pod.name=p;x=y,service.name=%2C")
	f.Fuzz(func(t *testing.T, s string) {
		if got, err := hbone.ParseBaggage(s); err == nil {
			if again, err := hbone.ParseBaggage(got.String()); len(got.String()) <= 8192 && (err != nil || again.String() != got.String()) {
				t.Errorf("%q gives %+v, which gives %+v, %v", s, got, again, err)
			}
		}
	})
}

func FuzzTraceparent(f *testing.F) {
	f.Add("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	f.Fuzz(func(t *testing.T, s string) {
		if got, err := hbone.ParseTraceparent(s); err == nil && got.String()[2:] != s[2:55] {
			t.Errorf("%q gives %s", s, got)
		}
	})
}

func FuzzAuthority(f *testing.F) {
	f.Add("10.0.0.9:80")
	f.Add("[::1]:80")
	f.Add("web.default.svc.cluster.local:80")
	f.Fuzz(func(t *testing.T, s string) {
		if hbone.CheckAuthority(s) != nil {
			return
		}
		for i := range len(s) {
			switch s[i] {
			case '@', '/', ' ', '?', '#', '%', 0, '\r', '\n':
				t.Errorf("admits %q", s)
			}
		}
	})
}
