package proxy_test

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/identity/crl"
	"github.com/ambit-mesh/ambit/identity/mtls"
	"github.com/ambit-mesh/ambit/internal/testkit/fakeca"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/telemetry"
)

// revoking is a CA that knows of revocations.
type revoking struct {
	*fakeca.CA
	list atomic.Pointer[crl.List]
}

func (r *revoking) Revoked(chain []*x509.Certificate) error { return r.list.Load().Check(chain) }

// revoke puts a list in force that names an identity's certificate.
func (r *revoking) revoke(t *testing.T, id identity.ID) {
	t.Helper()
	s, err := r.SVID(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour),
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: s.Chain[0].SerialNumber, RevocationTime: time.Now()}},
	}, r.Root(), r.Key())
	if err != nil {
		t.Fatal(err)
	}
	l, err := crl.Parse(der)
	if err != nil {
		t.Fatal(err)
	}
	r.list.Store(l)
}

// flags collects the response flags of what failed.
func (w *world) flags() <-chan telemetry.Record {
	failed := make(chan telemetry.Record, 1000)
	w.conf.Failed = func(r telemetry.Record) { failed <- r }
	return failed
}

// wantFlag waits for a record of a direction with a flag.
func (w *world) wantFlag(failed <-chan telemetry.Record, d telemetry.Direction, flag telemetry.Flag) telemetry.Record {
	w.t.Helper()
	deadline := time.After(5 * time.Second)
	for {
		select {
		case r := <-failed:
			if r.Direction == d && r.Flag == flag {
				return r
			}
		case <-deadline:
			w.t.Fatalf("nothing %s failed with %s:\n%s", d, flag, w.log)
		}
	}
}

func TestRevokedPeersAreCutAndRefused(t *testing.T) { // ID-16
	w := newWorld(t)
	ca := &revoking{CA: w.ca}
	ca.list.Store(&crl.List{})
	w.conf.Roots = ca
	failed := w.flags()
	a, b, c := w.captured("a", "10.0.0.1"), w.captured("b", "10.0.0.2"), w.captured("c", "10.0.0.3")
	app := b.echo(9080)
	bad, good := a.dial(b.at(9080)), c.dial(b.at(9080))
	for _, conn := range []net.Conn{bad, good} {
		if got := exchange(conn, "before"); got != "before" {
			t.Fatal(got)
		}
	}
	recheck := func() {
		for _, p := range []*pod{a, b, c} {
			p.proxy.Recheck(func(chain []*x509.Certificate) error { return mtls.Recheck(chain, ca) })
		}
	}
	ca.revoke(t, a.id())
	began := time.Now()
	recheck()
	if _, err := bad.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) || time.Since(began) > 2*time.Second {
		t.Errorf("the revoked client's connection: %v after %v, want a reset within 2s", err, time.Since(began))
	}
	if r := w.wantFlag(failed, telemetry.Inbound, telemetry.CertRevoked); r.Src.Identity != a.id() {
		t.Errorf("cut %+v, want the connection of a", r)
	}
	w.want("connection complete", `direction="inbound"`, `error="connection closed: peer certificate revoked by CRL: `, "src.addr=10.0.0.1:")
	if got := exchange(good, "after"); got != "after" {
		t.Errorf("another client's connection: %s", got)
	}
	before := app.conns.Load()
	a.refused(b.at(9080))
	if n := app.conns.Load(); n != before {
		t.Errorf("the application got %d connections of a client that is revoked", n-before)
	}
	w.wantFlag(failed, telemetry.Inbound, telemetry.CertRevoked)
	w.want("connection failed", `direction="inbound"`, `error="tls error: `, "is revoked")

	// A server that is revoked is cut by its clients.
	ca.revoke(t, b.id())
	recheck()
	if _, err := good.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the connection to the revoked server: %v, want a reset", err)
	}
	w.wantFlag(failed, telemetry.Outbound, telemetry.CertRevoked)
	c.refused(b.at(9080))
	if r := w.wantFlag(failed, telemetry.Outbound, telemetry.CertRevoked); r.Sent != 0 {
		t.Errorf("%d bytes were sent to a server that is revoked", r.Sent)
	}
}

func TestSlowHandshakesKeepNobodyOut(t *testing.T) { // ID-18
	w := newWorld(t)
	w.quiet()
	a, b, x := w.captured("a", "10.0.0.1"), w.captured("b", "10.0.0.2"), w.outside("x", "10.0.0.3")
	b.echo(9080)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var slow load
	slow.run(ctx, 100, func() error {
		// It is ended by the proxy, at the latest after its ten seconds, or by our end.
		c := x.connect(ctx, b.at(mesh.PortHBONE))
		if c == nil {
			return nil
		}
		defer context.AfterFunc(ctx, func() { c.Close() })()
		defer c.Close()
		if _, err := c.Write([]byte{22}); err != nil {
			return nil // it is one too many
		}
		_, _ = c.Read(make([]byte, 1))
		return nil
	})
	for slow.done.Load() < 100 {
		time.Sleep(time.Millisecond) // until they have all the places that they can have
	}
	for range 20 {
		began := time.Now()
		a.says(b.at(9080), "hello")
		if took := time.Since(began); took > 500*time.Millisecond {
			t.Errorf("a client's connection took %v beside slow strangers", took)
		}
	}
	cancel()
	slow.wg.Wait()
}
