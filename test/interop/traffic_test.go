package interop

import (
	"bytes"
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/local/client"
	"github.com/ambit-mesh/ambit/test/lab"
	"github.com/ambit-mesh/ambit/test/lab/figures"
)

// tunnels: each names the other's pod by its certificate, and between the nodes nobody can read what the pods say.
func tunnels(t *testing.T, w *world) {
	for _, y := range w.ways() {
		t.Run(y.name, func(t *testing.T) {
			var seen, tunnelled atomic.Int64
			ctx, cancel := context.WithCancel(t.Context())
			ended, err := w.Capture(ctx, func(s client.Segment) {
				if bytes.Contains(s.Payload, []byte("who is there")) {
					seen.Add(1)
				}
				if s.To.Port() == 15008 {
					tunnelled.Add(1)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			source, target := w.during(t, y, func() {
				if a := w.ask(t, y.client, y.server.Name+".inter:9000"); a.Outcome != "ok" {
					t.Fatalf("%+v", a)
				}
			})
			cancel()
			if err := ended(); err != nil {
				t.Fatal(err)
			}
			for _, line := range []string{source, target} {
				for _, want := range []string{
					`src.identity="spiffe://cluster.local/ns/inter/sa/` + y.client.Name + `"`,
					`dst.identity="spiffe://cluster.local/ns/inter/sa/` + y.server.Name + `"`,
				} {
					if !strings.Contains(line, want) {
						t.Errorf("no %s in %s", want, line)
					}
				}
			}
			if seen.Load() != 0 || tunnelled.Load() == 0 {
				t.Errorf("between the nodes: %d segments to port 15008, %d that can be read", tunnelled.Load(), seen.Load())
			}
		})
	}
}

// bytesWhole: a lot of bytes, up and down, on several streams at once, with a half-close before the answer.
func bytesWhole(t *testing.T, w *world) {
	for _, y := range w.ways() {
		for _, argv := range [][]string{{"-conns=1"}, {"-conns=8"}, {"-conns=8", "-down"}} {
			t.Run(y.name+" "+strings.Join(argv, " "), func(t *testing.T) {
				var b figures.Bulk
				if err := w.Exec(t.Context(), y.client, &b, append([]string{lab.Load, "bulk", "-verify", "-bytes=67108864", "-to", y.server.Name + ".inter:9000"}, argv...)...); err != nil {
					t.Fatal(err)
				}
				if b.Bytes != 64<<20 {
					t.Errorf("%d bytes", b.Bytes)
				}
			})
		}
	}
}

// names: the DNS proxy of either answers for services, and asks others for the rest.
func names(t *testing.T, w *world) {
	for _, y := range w.ways() {
		t.Run(y.name, func(t *testing.T) {
			before := w.dnsRequests(t, y.source)
			for _, name := range []string{y.server.Name, y.server.Name + ".inter", y.server.Name + ".inter.svc", y.server.Name + ".inter.svc.cluster.local"} {
				if a := w.ask(t, y.client, name+":9000"); a.Outcome != "ok" {
					t.Errorf("%s: %+v", name, a)
				}
			}
			if a := w.ask(t, y.client, "no-such-service.inter.svc.cluster.local:9000"); a.Outcome != "connect" || !strings.Contains(a.Error, "no such host") {
				t.Errorf("an unknown name: %+v", a)
			}
			if after := w.dnsRequests(t, y.source); after < before+5 {
				t.Errorf("the ztunnel of %s answered %v queries", y.source, after-before)
			}
		})
	}
}

// pods: one that starts under either ztunnel is reached at once and has an identity; one that is gone is known to nobody.
func pods(t *testing.T, w *world) {
	for _, y := range w.ways() {
		t.Run(y.name, func(t *testing.T) {
			late := lab.Pod{Namespace: "inter", Name: "late-" + y.server.Name, Node: y.target}
			if err := w.Start(t.Context(), late); err != nil {
				t.Fatal(err)
			}
			w.becomes(t, true, y.client, late.Name+":9000")
			w.becomes(t, true, late, y.client.Name+":9000")
			source, _ := w.during(t, y, func() { w.ask(t, y.client, late.Name+":9000") })
			if !strings.Contains(source, `dst.identity="spiffe://cluster.local/ns/inter/sa/`+late.Name+`"`) {
				t.Error(source)
			}
			if _, err := w.Local(t.Context(), "delete", "pod", "-n", "inter", late.Name); err != nil {
				t.Fatal(err)
			}
			for _, node := range []string{ourNode, theirNode} {
				within(t, 5*time.Second, late.Name+" is unknown to "+node, func(context.Context) bool { return len(w.dump(t, node).named(late.Name)) == 0 })
				within(t, 5*time.Second, node+" serves "+late.Name+" no more", func(context.Context) bool { return len(w.dump(t, node).held(late.Name)) == 0 })
			}
			w.becomes(t, false, y.client, late.Name+":9000")
		})
	}
}
