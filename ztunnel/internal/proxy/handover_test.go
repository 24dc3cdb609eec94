package proxy_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/linux/sock"
)

// load opens connections one after the other from several hands and counts those that did not do what they should.
type load struct {
	done, lost atomic.Int64
	first      atomic.Pointer[error]
	wg         sync.WaitGroup
}

func (l *load) run(ctx context.Context, hands int, once func() error) {
	for range hands {
		l.wg.Go(func() {
			for ctx.Err() == nil {
				if err := once(); err != nil && l.lost.Add(1) == 1 {
					l.first.Store(&err)
				}
				l.done.Add(1)
			}
		})
	}
}

func (l *load) report(t *testing.T, what string) {
	t.Helper()
	t.Logf("%s: %d connections, %d lost", what, l.done.Load(), l.lost.Load())
	if n := l.lost.Load(); n > 0 {
		t.Errorf("%s: %d of %d connections lost, the first: %v", what, n, l.done.Load(), *l.first.Load())
	}
}

// call is one short connection of an application.
func (p *pod) call(ctx context.Context, to netip.AddrPort, text string) error {
	c, err := sock.Dial(ctx, p.ns, netip.AddrPort{}, to, sock.Options{})
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if got := exchange(c, text); got != text {
		return fmt.Errorf("sent %q, got %q", text, got)
	}
	return nil
}

// transfer downloads until the end and compares.
func (p *pod) transfer(ctx context.Context, to netip.AddrPort, want [sha256.Size]byte) error {
	c, err := sock.Dial(ctx, p.ns, netip.AddrPort{}, to, sock.Options{})
	if err != nil {
		return err
	}
	defer c.Close()
	if err := errors.Join(c.SetDeadline(time.Now().Add(10*time.Second)), c.CloseWrite()); err != nil {
		return err
	}
	h := sha256.New()
	n, err := io.Copy(h, c)
	if err != nil {
		return fmt.Errorf("after %d bytes: %w", n, err)
	}
	if [sha256.Size]byte(h.Sum(nil)) != want {
		return fmt.Errorf("%d bytes came, which are not those that were sent", n)
	}
	return nil
}

func TestRollingRestartLosesNoConnection(t *testing.T) { // FT-03
	w := newWorld(t)
	w.quiet()
	w.conf.Grace = 3 * time.Second
	w.conf.Wait = 5 * time.Second
	a, b, x := w.captured("a", "10.0.0.1"), w.captured("b", "10.0.0.2"), w.outside("x", "10.0.0.3")
	vip, own := w.service(b, "10.96.0.1"), w.service(a, "10.96.0.2")
	b.echo(9080)
	a.echo(9080)
	slow := make([]byte, 256<<10) // sent over half a second
	for i := range slow {
		slow[i] = byte(i * 31)
	}
	b.listen(9081, func(c *net.TCPConn) {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for rest := slow; len(rest) > 0; rest = rest[min(len(rest), 10<<10):] {
			if _, err := c.Write(rest[:min(len(rest), 10<<10)]); err != nil {
				return // the client sees that it is cut
			}
			<-tick.C
		}
	})
	sum := sha256.Sum256(slow)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var tunnels, plain, self, transfers load
	tunnels.run(ctx, 24, func() error { return a.call(t.Context(), vip, "tunnelled") })
	plain.run(ctx, 24, func() error { return x.call(t.Context(), b.at(9080), "in plain text") })
	self.run(ctx, 1, func() error { return a.call(t.Context(), own, "to itself") })
	transfers.run(ctx, 4, func() error { return a.transfer(t.Context(), b.at(9081), sum) })

	var ended sync.WaitGroup
	for range 2 {
		long := a.dial(vip)
		w.must(long.SetDeadline(time.Now().Add(20 * time.Second)))
		if got := exchange(long, "long"); got != "long" {
			t.Fatal(got)
		}
		var began time.Time // of the first of the two ends
		for _, p := range []*pod{b, a} {
			elder := p.stop
			w.serve(p)
			before := tunnels.done.Load()
			for tunnels.done.Load() < before+50 {
				time.Sleep(time.Millisecond) // until the two have been side by side for some connections
			}
			if p == b {
				began = time.Now()
				ended.Go(func() { lives(t, long, began, w.conf.Grace) })
			}
			ended.Go(elder)
			before = tunnels.done.Load()
			for tunnels.done.Load() < before+200 {
				time.Sleep(time.Millisecond)
			}
		}
		ended.Wait()
	}
	cancel()
	for what, l := range map[string]*load{"through tunnels": &tunnels, "in plain text": &plain, "to itself": &self, "transfers": &transfers} {
		l.wg.Wait()
		l.report(t, what)
	}
}

// TestClientsKeepTheirPorts: we call the application in a client's name. If that took a port which the client has open,
// the client's own connection would fall silent.
func TestClientsKeepTheirPorts(t *testing.T) {
	w := newWorld(t)
	w.quiet()
	b, x := w.captured("b", "10.0.0.2"), w.outside("x", "10.0.0.3")
	b.echo(9080)
	var all []*net.TCPConn
	for range 600 { // with ports chosen as the client's kernel does, some four of them would collide
		c := x.dial(b.at(9080))
		if got := exchange(c, "hello"); got != "hello" {
			t.Fatalf("connection %d: %s", len(all), got)
		}
		all = append(all, c)
	}
	for i, c := range all {
		w.must(c.SetDeadline(time.Now().Add(time.Second)))
		if got := exchange(c, "still"); got != "still" {
			t.Fatalf("connection %d of %d fell silent: %s", i, len(all), got)
		}
	}
}

// lives wants an old connection to work until its proxy's time is over, and then to be reset.
func lives(t *testing.T, c *net.TCPConn, began time.Time, grace time.Duration) {
	for time.Since(began) < grace-500*time.Millisecond {
		if got := exchange(c, "still"); got != "still" {
			t.Errorf("an old connection broke %v after the end began, want it to live for %v: %s", time.Since(began), grace, got)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("at the end an old connection gives %v, want a reset", err)
	}
}
