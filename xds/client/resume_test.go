package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/ambit-mesh/ambit/api/discovery"
	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/internal/testkit/fakeca"
	"github.com/ambit-mesh/ambit/xds/delta"
)

const host = "istiod.istio-system.svc"

// serving is the certificate of a control plane.
func serving(ca *fakeca.CA) tls.Certificate {
	return *ca.Issue(identity.ID{TrustDomain: "cluster.local", Namespace: "istio-system", ServiceAccount: "istiod"},
		func(c *x509.Certificate) { c.DNSNames = []string{host} }).TLS()
}

func write(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// Files of roots and token are read anew for each connection: both change while the client runs.
func TestRootsAndTokenAreReadAgain(t *testing.T) {
	p, w := newPlane(t), newWorld()
	p.put("a", "1")
	dir := t.TempDir()
	roots, token := filepath.Join(dir, "root-cert.pem"), filepath.Join(dir, "token")
	write(t, roots, p.ca.PEM())
	write(t, token, []byte("nobody\n")) // whom the server refuses
	ended := make(chan string, 1000)
	p.stop()
	listen := func(ca *fakeca.CA) {
		p.ca = ca
		p.serve(p.addr, grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{serving(ca)}, MinVersion: tls.VersionTLS13})))
	}
	listen(p.ca)
	p.run(New(Config{
		Address: p.addr, Node: &discovery.Node{Id: "n"}, TLS: TLSFromFile(roots, host), Token: TokenFromFile(token),
		Handlers: []Handler{Handle(workloadType, false, w.apply)}, Ended: func(why string) { ended <- why }, Log: slog.New(slog.DiscardHandler),
	}))
	if why := <-ended; why != "ConnectionError" {
		t.Errorf("refused with reason %s", why)
	}
	write(t, token, []byte("ztunnel\n"))
	w.await(t, map[string]string{"a": "1"})

	p.stop()
	foreign := fakeca.New(t)
	listen(foreign) // signed by a root that we do not trust yet
	for len(ended) > 0 {
		<-ended
	}
	<-ended
	p.put("b", "1")
	<-ended
	w.await(t, map[string]string{"a": "1"})
	write(t, roots, foreign.PEM())
	w.await(t, map[string]string{"a": "1", "b": "1"})
}

// While the server is away, attempts come at most every 10 ms at first and every 15 s later, never all at once.
func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := []time.Time{}
		c := New(Config{
			Address: "istiod:15012", Log: slog.New(slog.DiscardHandler),
			TLS: func() (*tls.Config, error) {
				tries = append(tries, time.Now())
				return nil, errors.New("no roots yet")
			},
		})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		if err := c.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if n := len(tries); n < 45 || n > 100 {
			t.Errorf("%d attempts in 10 minutes", n)
		}
		for i := range tries[1:] {
			if d := tries[i+1].Sub(tries[i]); d < 5*time.Millisecond || d > 15*time.Second {
				t.Errorf("attempt %d came %v after the one before", i+1, d)
			}
		}
	})
}

// An address that leads nowhere for a moment, as a service's does while its only pod restarts, costs seconds.
func TestAConnectionThatDoesNotComeUpIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := []time.Time{}
		c := New(Config{
			Address: "passthrough:istiod", Node: &discovery.Node{Id: "n"}, Log: slog.New(slog.DiscardHandler),
			TLS: func() (*tls.Config, error) { return &tls.Config{MinVersion: tls.VersionTLS13}, nil },
			DialOptions: []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
				tries = append(tries, time.Now())
				<-ctx.Done()
				return nil, ctx.Err()
			})},
		})
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if err := c.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if len(tries) < 6 {
			t.Errorf("%d attempts in 30 s", len(tries))
		}
	})
}

// Good resources are kept, the others are named, whether they do not decode or the handler refuses them.
func TestRefusalsNameTheBadAndKeepTheGood(t *testing.T) {
	var kept []string
	h := Handle(workloadType, false, func(up []Item[*workload.Workload], _ []string) error {
		var bad []string
		for _, i := range up {
			if i.Body.GetName() == "" {
				bad = append(bad, i.Name)
			} else {
				kept = append(kept, i.Name)
			}
		}
		if bad != nil {
			return Refuse(errors.New("a workload needs a name"), bad...)
		}
		return nil
	})
	body := func(m *workload.Workload) *anypb.Any {
		a, err := anypb.New(m)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	refused, err := h.apply([]delta.Resource{
		{Name: "good", Body: body(&workload.Workload{Name: "x"})},
		{Name: "nameless", Body: body(&workload.Workload{})},
		{Name: "broken", Body: &anypb.Any{TypeUrl: workloadType, Value: []byte{0xff}}},
		{Name: "other", Body: &anypb.Any{TypeUrl: "other"}},
		{Name: "empty"},
	}, nil)
	if got := strings.Join(refused, " "); got != "broken other empty nameless" || strings.Join(kept, " ") != "good" {
		t.Errorf("refused %s, kept %s", got, kept)
	}
	if err == nil || !strings.Contains(err.Error(), "broken: ") || !strings.Contains(err.Error(), "; a workload needs a name") || strings.Contains(err.Error(), "\n") {
		t.Errorf("reason %v", err)
	}
}

// Bytes of whatever kind in a resource's body refuse it; they do nothing else.
func FuzzHandler(f *testing.F) {
	f.Add([]byte{0xff}, "a")
	f.Fuzz(func(t *testing.T, b []byte, name string) {
		n := 0
		h := Handle(workloadType, false, func(up []Item[*workload.Workload], _ []string) error { n = len(up); return nil })
		refused, err := h.apply([]delta.Resource{{Name: name, Body: &anypb.Any{TypeUrl: workloadType, Value: b}}}, nil)
		if n+len(refused) != 1 || (err == nil) != (n == 1) {
			t.Errorf("%d taken, %d refused, error %v", n, len(refused), err)
		}
	})
}
