package proxy_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/api/authorization"
	"github.com/ambit-mesh/ambit/internal/testkit/fakeca"
	"github.com/ambit-mesh/ambit/linux/sock"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/telemetry"
	"github.com/ambit-mesh/ambit/ztunnel/internal/state"
)

func TestOutOfDescriptorsPasses(t *testing.T) { // RS-08
	w := newWorld(t)
	b, x := w.captured("b", "10.0.0.2"), w.outside("x", "10.0.0.3")
	b.echo(9080)
	x.says(b.at(9080), "before")
	var had syscall.Rlimit
	w.must(syscall.Getrlimit(syscall.RLIMIT_NOFILE, &had))
	few := had
	few.Cur = 400
	w.must(syscall.Setrlimit(syscall.RLIMIT_NOFILE, &few))
	restore := sync.OnceFunc(func() { w.must(syscall.Setrlimit(syscall.RLIMIT_NOFILE, &had)) })
	t.Cleanup(restore)
	// Client, proxy and application share the limit. Once it is used up, each descriptor that is set free is the client's next
	// connection, and the proxy has none for it.
	var held, spare []interface{ Close() error }
	closeAll := func() {
		for _, c := range held {
			c.Close()
		}
		held = nil
	}
	t.Cleanup(closeAll)
	for range 60 {
		f, err := os.Open("/dev/null")
		w.must(err)
		spare = append(spare, f)
	}
	for len(spare) > 0 && !strings.Contains(w.log.String(), "connection not accepted") {
		c, err := sock.Dial(t.Context(), x.ns, netip.AddrPort{}, b.at(9080), sock.Options{})
		if err == nil {
			held = append(held, c)
			continue
		}
		time.Sleep(time.Millisecond) // those that are on the way take what there is
		spare[0].Close()
		spare = spare[1:]
	}
	held = append(held, spare...)
	began := time.Now()
	w.want("connection not accepted", "too many open files")
	spin := strings.Count(w.log.String(), "connection not accepted")
	if most := 30 * (1 + int(time.Since(began)/time.Second)); spin > most {
		t.Errorf("%d tries to accept in %v: it spins", spin, time.Since(began))
	}
	closeAll()
	recovered := time.Now()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		err := x.call(ctx, b.at(9080), "after")
		cancel()
		if err == nil {
			break
		}
		if time.Since(recovered) > 5*time.Second {
			t.Fatalf("not recovered within 5s: %v", err)
		}
		time.Sleep(10 * time.Millisecond) // what was held ends, each in its time
	}
}

func TestAFloodOfDeniedIsCountedAndSaidOnce(t *testing.T) { // RS-11
	w := newWorld(t)
	metrics := telemetry.NewMetrics("ztunnel", "test")
	w.conf.TCP = metrics.TCP
	b, x := w.captured("b", "10.0.0.2"), w.outside("x", "10.0.0.3")
	app := b.echo(9080)
	w.policies(strict())
	const tries = 2000
	began := time.Now()
	for range tries {
		x.refused(b.at(9080))
	}
	w.over(b)
	lines := strings.Count(w.log.String(), "explicitly denied by: default/strict")
	if most := 11 * (2 + int(time.Since(began)/time.Second)); lines > most {
		t.Errorf("%d lines for %d refusals in %v, want at most %d", lines, tries, time.Since(began), most)
	}
	counted := w.failed(metrics, "DENY")
	for deadline := time.Now().Add(5 * time.Second); counted < tries && time.Now().Before(deadline); counted = w.failed(metrics, "DENY") {
		time.Sleep(10 * time.Millisecond) // the last one is counted behind its end
	}
	if counted != tries {
		t.Errorf("%v refusals were counted, want %d", counted, tries)
	}
	if n := app.conns.Load(); n != 0 {
		t.Errorf("the application got %d connections", n)
	}
}

// failed is how many connections the metrics say failed with a flag.
func (w *world) failed(metrics *telemetry.Metrics, flag string) (n float64) {
	page := httptest.NewRecorder()
	metrics.Handler().ServeHTTP(page, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for line := range strings.Lines(page.Body.String()) {
		if strings.HasPrefix(line, "istio_tcp_connections_failed") && strings.Contains(line, `response_flags="`+flag+`"`) {
			v, err := strconv.ParseFloat(strings.Fields(line[strings.LastIndex(line, "}")+1:])[0], 64)
			w.must(err)
			n += v
		}
	}
	return n
}

func TestOwnPortsLeaveNothingBehind(t *testing.T) { // BP-03, HB-04
	w := newWorld(t)
	w.quiet()
	b := w.captured("b", "10.0.0.2")
	b.refused(b.at(mesh.PortOutbound))
	w.over(b)
	before := runtime.NumGoroutine()
	ports := []uint16{mesh.PortOutbound, mesh.PortPlaintext, mesh.PortHBONE}
	for i := range 3000 {
		to := b.at(ports[i%len(ports)])
		if i%2 == 0 {
			to = netip.AddrPortFrom(w.ip("127.0.0.1"), to.Port())
		}
		b.refused(to)
	}
	w.over(b)
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before+5; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, before there were %d", runtime.NumGoroutine(), before)
		}
	}
}

func TestExpiredCertificatesAreRefusedUntilRenewed(t *testing.T) { // F10, ID-07
	w := newWorld(t)
	failed := w.flags()
	a, b := w.captured("a", "10.0.0.1"), w.captured("b", "10.0.0.2")
	app := b.echo(9080)
	w.ca.Use(b.id(), w.ca.Issue(b.id(), fakeca.Expired()))
	a.refused(b.at(9080))
	w.wantFlag(failed, telemetry.Outbound, telemetry.TLSFailed)
	w.want(`direction="outbound"`, `error="tls error: `, "expired")
	w.want("connection failed", `direction="inbound"`, `error="tls error: `)
	if n := app.conns.Load(); n != 0 {
		t.Errorf("the application got %d connections", n)
	}
	w.ca.Use(b.id(), w.ca.Issue(b.id()))
	a.says(b.at(9080), "renewed")
}

// TestVerdictsFollowTheHistoryOfPolicies changes policy again and again under load. A verdict must be that of a policy
// which was in force at some moment of the connection's attempt: none of an older one, and never back.
func TestVerdictsFollowTheHistoryOfPolicies(t *testing.T) { // FT-21
	w := newWorld(t)
	w.quiet()
	a, b, x := w.captured("a", "10.0.0.1"), w.captured("b", "10.0.0.2"), w.outside("x", "10.0.0.3")
	b.echo(9080)
	type change struct {
		began, ended time.Time
		denied       bool
	}
	type verdict struct {
		began, ended time.Time
		denied       bool
	}
	history := []change{{denied: false}}
	var mu sync.Mutex // guards verdicts
	var verdicts []verdict
	ctx, cancel := context.WithCancel(t.Context())
	var hands load
	for _, from := range []*pod{a, x} {
		hands.run(ctx, 2, func() error {
			began := time.Now()
			err := from.call(t.Context(), b.at(9080), "may I?")
			mu.Lock()
			defer mu.Unlock()
			verdicts = append(verdicts, verdict{began, time.Now(), err != nil})
			return nil
		})
	}
	deny := policy("nobody", authorization.Action_DENY, &authorization.Match{DestinationPorts: []uint32{9080}})
	for i := range 200 {
		before := hands.done.Load()
		c := change{began: time.Now(), denied: i%2 == 0}
		if c.denied {
			w.policies(deny)
		} else {
			w.must(w.store.ApplyPolicies(state.Policies{Remove: []string{"default/nobody"}}))
		}
		c.ended = time.Now()
		history = append(history, c)
		for hands.done.Load() < before+8 {
			time.Sleep(100 * time.Microsecond) // until the change has been asked for by each
		}
	}
	cancel()
	hands.wg.Wait()
	denials := 0
	for _, v := range verdicts {
		possible := false
		for i, c := range history {
			over := i+1 < len(history) && history[i+1].ended.Before(v.began)
			if c.denied == v.denied && !over && !c.began.After(v.ended) {
				possible = true
			}
		}
		if !possible {
			t.Fatalf("denied: %v from %v to %v, when no such policy was in force", v.denied, v.began, v.ended)
		}
		if v.denied {
			denials++
		}
	}
	if denials == 0 || denials == len(verdicts) {
		t.Errorf("%d of %d were denied: nothing was tried", denials, len(verdicts))
	}
	t.Logf("%d verdicts, %d denied", len(verdicts), denials)
}
