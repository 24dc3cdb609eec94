package node_test

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/testkit/fakeztunnel"
	"github.com/ambit-mesh/ambit/linux/link"
	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/linux/sock"
	"github.com/ambit-mesh/ambit/mesh"
)

// says listens in a namespace and gives everybody one word.
func says(t *testing.T, ns *netns.Namespace, port uint16, word string) {
	t.Helper()
	l, err := sock.Listen(ns, netip.AddrPortFrom(netip.IPv4Unspecified(), port), sock.Options{Transparent: true})
	must(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.AcceptTCP()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte(word)) // the other side notices a loss
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
}

// hears connects and gives the word that it is told.
func hears(ns *netns.Namespace, to netip.AddrPort) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c, err := sock.Dial(ctx, ns, netip.AddrPort{}, to, sock.Options{})
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return "", err
	}
	b := make([]byte, 16)
	n, err := c.Read(b)
	return string(b[:n]), err
}

// BP-20: a pod joins and leaves 100 times under traffic. Probes never fail; while the pod says that it is captured nobody
// reaches the application but through the proxy; and at the end nothing is left.
func TestBP20JoiningAndLeavingUnderTraffic(t *testing.T) {
	w := newWorld(t)
	w.conf.LeaveAfter = 40 * time.Millisecond // in which what is on its way must end
	p := w.pod("web", "u1", "10.0.0.1")
	client := w.pod("client", "u2", "10.0.0.2")
	// The node itself is on the pods' network.
	must(t, link.AddVeth(link.Veth{Name: "vnode", NS: w.bridge, Bridge: "br0", Peer: "up0", PeerNS: mustNS(t)}))
	must(t, link.Up(w.bridge, "vnode"))
	must(t, link.AddAddr(nil, "up0", netip.MustParsePrefix("10.0.0.253/24")))
	must(t, link.Up(nil, "up0"))
	t.Cleanup(func() { must(t, link.Delete(nil, "up0")) })
	must(t, link.AddRoute(p.ns, link.Route{To: netip.MustParsePrefix(mesh.ProbeSourceV4 + "/32"), Via: netip.MustParseAddr("10.0.0.253")}))
	says(t, p.ns, 80, "application")
	says(t, p.ns, mesh.PortPlaintext, "proxy")
	w.namespace("default", false)
	w.api.Put(p.running())
	w.start()
	z := w.proxy(fakeztunnel.Yes)
	z.Expect(t, "snapshot")

	var flips, probes, captured, direct, cut atomic.Int64
	until := make(chan struct{})
	var wg sync.WaitGroup
	again := func(f func()) {
		wg.Go(func() {
			for {
				select {
				case <-until:
					return
				case <-time.After(time.Millisecond): // as fast as clients are
					f()
				}
			}
		})
	}
	to := netip.AddrPortFrom(p.ip, 80)
	again(func() {
		if word, err := hears(nil, to); err != nil || word != "application" {
			t.Errorf("BP-20: a probe gets %q, %v", word, err)
		}
		probes.Add(1)
	})
	again(func() {
		before, was, start := flips.Load(), p.annotation(), time.Now()
		word, err := hears(client.ns, to)
		if took := time.Since(start); errors.Is(err, syscall.ECONNRESET) && took > 10*time.Millisecond {
			cut.Add(1) // as it must be: it was there before the rules and did not end within the time given, on a machine that is busy
			return
		}
		if word != "application" && word != "proxy" {
			t.Errorf("BP-20: a connection gets %q, %v", word, err)
		}
		if p.annotation() != was || flips.Load() != before {
			return // in between either is right
		}
		switch {
		case was == mesh.RedirectionEnabled && word == "application":
			t.Error("BP-20: the application is reached past the proxy")
		case was == mesh.RedirectionEnabled:
			captured.Add(1)
		case word == "application":
			direct.Add(1)
		}
	})
	for range 100 {
		flips.Add(1)
		w.namespace("default", true)
		p.annotated(mesh.RedirectionEnabled)
		flips.Add(1)
		z.Expect(t, p.added())
		w.namespace("default", false)
		z.Expect(t, "del u1")
	}
	close(until)
	wg.Wait()
	t.Logf("%d probes, %d connections captured, %d direct, %d cut", probes.Load(), captured.Load(), direct.Load(), cut.Load())
	if cut.Load() > 50 {
		t.Errorf("BP-20: %d connections were cut in 100 times", cut.Load())
	}
	if probes.Load() < 100 || captured.Load() == 0 || direct.Load() == 0 {
		t.Error("BP-20: there was no traffic: this test cannot fail")
	}
	wait(t, "end of the exemption", func() bool { return !p.probed() })
	if got := p.tables(); got != "" || p.annotation() != "" {
		t.Errorf("BP-20: left over: %q, annotation %q", got, p.annotation())
	}
	for _, r := range []link.Route{{To: netip.MustParsePrefix("0.0.0.0/0"), Link: "lo", Table: 100, Local: true}, {To: netip.MustParsePrefix("::/0"), Link: "lo", Table: 100, Local: true}} {
		if there, err := link.HasRoute(p.ns, r); err != nil || there {
			t.Errorf("BP-20: left over: %s, %v", r, err)
		}
	}
	z.Quiet(t)
}

func mustNS(t *testing.T) *netns.Namespace {
	t.Helper()
	ns, err := netns.Current()
	must(t, err)
	t.Cleanup(func() { must(t, ns.Close()) })
	return ns
}
