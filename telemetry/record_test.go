package telemetry

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/identity"
)

func example(d Direction) *Record {
	return &Record{
		ID: "0123456789abcdef0123456789abcdef", Direction: d, Mutual: true, Type: "Direct",
		Src: Party{
			Addr: netip.MustParseAddrPort("10.244.1.4:40000"), Name: "notsleep-1", Namespace: "default", Workload: "notsleep", Cluster: "Kubernetes",
			Identity: identity.ID{TrustDomain: "cluster.local", Namespace: "default", ServiceAccount: "notsleep"},
		},
		Dst:     Party{Addr: netip.MustParseAddrPort("10.244.2.7:9080"), Name: "productpage-1", Namespace: "default", Workload: "productpage"},
		Hop:     netip.MustParseAddrPort("10.244.2.7:15008"),
		Service: Service{Host: "productpage.default.svc.cluster.local", Name: "productpage", Namespace: "default"},
		Sent:    83, Received: 1024, Duration: 13*time.Millisecond + 400*time.Microsecond,
	}
}

// logged runs f with a logger of the format and returns its lines without their times.
func logged(t *testing.T, format Format, spec string, f func(*Handler)) string {
	t.Helper()
	levels, err := ParseLevels(spec)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	f(NewHandler(&b, format, levels))
	return regexp.MustCompile(`(?m)^[0-9T:.-]+Z`).ReplaceAllString(b.String(), "TIME")
}

func TestAccessLineInText(t *testing.T) {
	denied := example(Inbound)
	denied.Err, denied.Flag = "connection closed due to policy rejection: explicitly denied by: default/p", Denied
	denied.Policy, denied.Why = "default/p", "because"
	early := *denied
	early.Early = true
	got := logged(t, Text, "info", func(h *Handler) {
		a := NewAccess(h)
		a.Begin(example(Outbound))
		a.End(example(Outbound))
		a.End(denied)
		a.End(&early)
	})
	keys := `src.addr=10.244.1.4:40000 src.workload="notsleep-1" src.namespace="default" src.identity="spiffe://cluster.local/ns/default/sa/notsleep" src.cluster="Kubernetes" dst.addr=10.244.2.7:15008 dst.hbone_addr=10.244.2.7:9080 dst.service="productpage.default.svc.cluster.local" dst.workload="productpage-1" dst.namespace="default" direction=%s duration="13ms"`
	rejection := ` error="connection closed due to policy rejection: explicitly denied by: default/p" policy="default/p" why="because"`
	want := "TIME\tinfo\taccess\tconnection complete\t" + strings.ReplaceAll(keys, "%s", `"outbound" bytes_sent=83 bytes_recv=1024`) + "\n" +
		"TIME\terror\taccess\tconnection complete\t" + strings.ReplaceAll(keys, "%s", `"inbound" bytes_sent=1024 bytes_recv=83`) + rejection + "\n" +
		"TIME\twarn\taccess\tconnection failed\tsrc.addr=10.244.1.4:40000 dst.addr=10.244.2.7:9080 direction=\"inbound\"" + rejection + "\n"
	if got != want {
		t.Errorf("log is\n%s\nwant\n%s", got, want)
	}
}

func TestAccessLineInJSON(t *testing.T) {
	got := logged(t, JSON, "info,access=debug", func(h *Handler) { NewAccess(h).Begin(example(Outbound)) })
	var line map[string]any
	if err := json.Unmarshal([]byte(got), &line); err != nil {
		t.Fatalf("%v in %s", err, got)
	}
	if line["message"] != "connection opened" || line["scope"] != "access" || line["src.addr"] != "10.244.1.4:40000" || line["bytes_sent"] != 83.0 {
		t.Errorf("line = %v", line)
	}
}

func TestWalkthrough(t *testing.T) {
	plain := example(Inbound)
	plain.Mutual, plain.Src.Identity = false, identity.ID{}
	direct := example(Outbound)
	direct.Hop, direct.Type, direct.Err = netip.AddrPort{}, "Passthrough", "refused"
	got := logged(t, Walkthrough, "info", func(h *Handler) {
		a := NewAccess(h)
		for _, r := range []*Record{example(Outbound), example(Inbound), plain, direct} {
			a.Begin(r)
			a.End(r)
		}
	})
	const id = "id=0123456789abcdef0123456789abcdef"
	want := `TIME  INFO outbound{` + id + `}: ztunnel::proxy::outbound: proxy to 10.244.2.7:9080 using HBONE via 10.244.2.7:15008 type Direct
TIME  INFO outbound{` + id + `}: ztunnel::proxy::outbound: complete dur=13.4ms
TIME  INFO inbound{` + id + ` peer_ip=10.244.1.4 peer_id=spiffe://cluster.local/ns/default/sa/notsleep}: ztunnel::proxy::inbound: got CONNECT request to 10.244.2.7:9080
TIME  INFO inbound{` + id + ` peer_ip=10.244.1.4 peer_id=spiffe://cluster.local/ns/default/sa/notsleep}: ztunnel::proxy::inbound: complete dur=13.4ms
TIME  INFO inbound{` + id + ` peer_ip=10.244.1.4}: ztunnel::proxy::inbound: accepted connection
TIME  INFO inbound{` + id + ` peer_ip=10.244.1.4}: ztunnel::proxy::inbound: connection complete dur=13.4ms
TIME  INFO outbound{` + id + `}: ztunnel::proxy::outbound: Proxying to 10.244.2.7:9080 using TCP via 10.244.2.7:9080 type Passthrough
TIME  WARN outbound{` + id + `}: ztunnel::proxy::outbound: failed dur=13.4ms err="refused"
`
	if got != want {
		t.Errorf("log is\n%s\nwant\n%s", got, want)
	}
}

func TestForeignTextCannotForgeALine(t *testing.T) {
	for _, format := range []Format{Text, JSON, Walkthrough} {
		got := logged(t, format, "debug", func(h *Handler) {
			r := example(Inbound)
			r.Src.Name, r.Err = "x\nTIME\tinfo\taccess\tforged\u2028\x1b[0m", "y\r\nforged"
			a := NewAccess(h)
			a.Begin(r)
			a.End(r)
			slog.New(h).Info("message\nforged", "key\nforged", "value\nforged")
		})
		if n := strings.Count(got, "\n"); n != 3 || strings.ContainsAny(got, "\r\x1b") {
			t.Errorf("format %d: %d lines, want 3:\n%q", format, n, got)
		}
	}
}

func TestLevels(t *testing.T) {
	l, err := ParseLevels("warn,ztunnel::access=off,dns=debug")
	if err != nil {
		t.Fatal(err)
	}
	type q struct {
		scope string
		level slog.Level
	}
	for c, want := range map[q]bool{
		{"access", slog.LevelError}: false, {"dns", slog.LevelDebug}: true, {"proxy::dns", slog.LevelDebug}: true,
		{"xds", slog.LevelInfo}: false, {"xds", slog.LevelWarn}: true,
	} {
		if got := l.Enabled(c.scope, c.level); got != want {
			t.Errorf("Enabled(%s, %s) = %v, want %v", c.scope, c.level, got, want)
		}
	}
	if err := l.Set("loud"); err == nil || l.String() != "warn,ztunnel::access=off,dns=debug" {
		t.Errorf("a bad level was accepted: %v, %s", err, l)
	}
	if err := l.Set("debug"); err != nil || !l.Enabled("xds", slog.LevelDebug) {
		t.Errorf("Set(debug) has no effect: %v", err)
	}
	if l.Reset(); l.Enabled("xds", slog.LevelInfo) {
		t.Error("Reset() has no effect")
	}
}

func FuzzLevels(f *testing.F) {
	f.Add("info,access=warn")
	f.Fuzz(func(t *testing.T, spec string) {
		if l, err := ParseLevels(spec); err == nil {
			l.Enabled("access", slog.LevelInfo)
		}
	})
}
