package telemetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/ambit-mesh/ambit/identity"
)

func example(d Direction) *Record {
	return &Record{
		ID: "0123456789abcdef0123456789abcdef", Direction: d, Mutual: true, Type: "Direct",
		Src: Party{
			Addr: netip.MustParseAddrPort("10.244.1.4:40000"), Name: "notsleep-1", Namespace: "default", Workload: "notsleep", Cluster: "Kubernetes",
			Identity: identity.ID{TrustDomain: "cluster.local", Namespace: "default", ServiceAccount: "notsleep"},
		},
		Dst:     Party{Addr: netip.MustParseAddrPort("10.244.2.7:9080"), Name: "productpage-1", Namespace: "default", Workload: "productpage", Account: identity.ID{TrustDomain: "cluster.local", Namespace: "default", ServiceAccount: "productpage"}},
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
	denied := example(Inbound)
	denied.Err, denied.Policy, denied.Flag = "connection closed due to policy rejection: explicitly denied by: default/p", "default/p", Denied
	got := logged(t, JSON, "info,access=debug", func(h *Handler) {
		a := NewAccess(h)
		a.Begin(example(Outbound))
		a.End(example(Outbound))
		a.End(denied)
		slog.New(h).With(Scope("xds"), Span("stream", slog.Int("n", 7))).Warn("lost", "after", 1500*time.Millisecond, "ok", false)
	})
	got = strings.ReplaceAll(regexp.MustCompile(`"time":"[^"]*"`).ReplaceAllString(got, `"time":"T"`), "\n", "\n")
	const ends = `"src.addr":"10.244.1.4:40000","src.workload":"notsleep-1","src.namespace":"default","src.identity":"spiffe://cluster.local/ns/default/sa/notsleep","src.cluster":"Kubernetes","dst.addr":"10.244.2.7:15008","dst.hbone_addr":"10.244.2.7:9080","dst.service":"productpage.default.svc.cluster.local","dst.workload":"productpage-1","dst.namespace":"default",`
	want := `{"level":"debug","time":"T","scope":"access","message":"connection opened",` + ends + `"direction":"outbound"}
{"level":"info","time":"T","scope":"access","message":"connection complete",` + ends + `"direction":"outbound","bytes_sent":83,"bytes_recv":1024,"duration":"13ms"}
{"level":"error","time":"T","scope":"access","message":"connection complete",` + ends + `"direction":"inbound","bytes_sent":1024,"bytes_recv":83,"duration":"13ms","error":"connection closed due to policy rejection: explicitly denied by: default/p","policy":"default/p"}
{"level":"warn","time":"T","scope":"xds","message":"lost","after":"1.5s","ok":false,"stream":{"n":7}}
`
	if got != want {
		t.Errorf("log is\n%s\nwant\n%s", got, want)
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

func TestForeignTextCannotForgeALine(t *testing.T) { // XD-18
	const evil = "x\nTIME\tinfo\taccess\tforged\r\x1b[31m\x00\x7f\u009b31m\u2028\u202eforged %s%n\xff\"\\"
	for _, format := range []Format{Text, JSON, Walkthrough} {
		got := logged(t, format, "debug", func(h *Handler) {
			r := example(Inbound)
			r.ID, r.Type, r.Src.Name, r.Err, r.Policy, r.Why, r.Service.Host, r.Dst.Workload = evil, evil, evil, evil, evil, evil, evil, evil
			r.Src.Identity.ServiceAccount, r.Src.Cluster = evil, evil
			a := NewAccess(h)
			a.Begin(r)
			a.End(r)
			log := slog.New(h).With(Scope(evil), evil, evil).WithGroup(evil)
			log.Info(evil, Span(evil, slog.String(evil, evil)), slog.Any(evil, errors.New(evil)), slog.Group(evil, evil, evil))
		})
		lines := strings.SplitAfter(got, "\n")
		if len(lines) != 4 {
			t.Errorf("format %d: %d lines, want 3:\n%q", format, len(lines)-1, got)
		}
		for _, l := range lines[:len(lines)-1] {
			if i := strings.IndexFunc(strings.Trim(l, "\n"), func(r rune) bool { return !strconv.IsPrint(r) && (r != '\t' || format != Text) }); i >= 0 {
				t.Errorf("format %d: at %d of %q", format, i, l)
			}
			var m map[string]any
			if err := json.Unmarshal([]byte(l), &m); format == JSON && err != nil {
				t.Errorf("%v in %q", err, l)
			}
		}
		if strings.Contains(got, "%!") {
			t.Errorf("format %d took foreign text for a format:\n%s", format, got)
		}
	}
}

func TestLevels(t *testing.T) {
	l, err := ParseLevels("warn,ztunnel::access=off,dns=debug,proxy=error,proxy::inbound=trace")
	if err != nil {
		t.Fatal(err)
	}
	enabled := func(scope string, level slog.Level, want bool) {
		t.Helper()
		if got := l.Enabled(scope, level); got != want {
			t.Errorf("%s: Enabled(%s, %s) = %v, want %v", l, scope, level, got, want)
		}
	}
	enabled("access", slog.LevelError, false)
	enabled("dns", slog.LevelDebug, true)
	enabled("proxy::dns", slog.LevelDebug, false) // the longest scope that holds it
	enabled("inpod::dns", slog.LevelDebug, true)  // else the name that it ends with
	enabled("xds", slog.LevelInfo, false)
	enabled("xds", slog.LevelWarn, true)
	enabled("proxy::outbound", slog.LevelWarn, false)
	enabled("proxy::inbound", Trace, true)
	enabled("ztunnel::proxy::inbound::more", Trace, true)
	before := l.String()
	if err := l.Set("debug,xds=loud"); err == nil || l.String() != before || before != "access=off,dns=debug,proxy=error,proxy::inbound=trace,warn" {
		t.Errorf("a bad level was accepted: %v, %s", err, l)
	}
	if err := l.Set("xds=debug"); err != nil {
		t.Fatal(err)
	}
	enabled("xds", slog.LevelDebug, true)
	enabled("dns", slog.LevelDebug, true) // what is not named stays
	enabled("certs", slog.LevelInfo, false)
	l.Reset()
	enabled("xds", slog.LevelInfo, false)
	if l.String() != before {
		t.Errorf("reset to %s, want %s", l, before)
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

// Whatever text comes in, a line is one line, and JSON is JSON that says the same.
func FuzzLine(f *testing.F) {
	f.Add("name", "x\n\x1b[0m\u2028\xff\"")
	levels, err := ParseLevels("info")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, key, value string) {
		for _, format := range []Format{Text, JSON, Walkthrough} {
			var b bytes.Buffer
			slog.New(NewHandler(&b, format, levels)).Info(value, key, value, Span("s", slog.String(key, value)), Scope(value))
			got := b.String()
			if strings.Count(got, "\n") != 1 || strings.IndexFunc(strings.TrimSuffix(got, "\n"), func(r rune) bool { return !strconv.IsPrint(r) && (r != '\t' || format != Text) }) >= 0 {
				t.Errorf("%d: %q", format, got)
			}
			if format != JSON {
				continue
			}
			var m struct{ Message, Scope string }
			if err := json.Unmarshal([]byte(got), &m); err != nil {
				t.Errorf("%v: %q", err, got)
			}
			if utf8.ValidString(value) && !strings.ContainsFunc(value, func(r rune) bool { return r > 0xffff }) && m.Message != value && key != "message" && key != "scope" {
				t.Errorf("%q became %q", value, m.Message)
			}
		}
	})
}
