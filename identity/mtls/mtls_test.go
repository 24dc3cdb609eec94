package mtls_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/identity/crl"
	"github.com/ambit-mesh/ambit/identity/mtls"
	"github.com/ambit-mesh/ambit/identity/svid"
	"github.com/ambit-mesh/ambit/internal/testkit/fakeca"
	"github.com/ambit-mesh/ambit/internal/testkit/memnet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	a = identity.ID{TrustDomain: "cluster.local", Namespace: "a", ServiceAccount: "a"}
	b = identity.ID{TrustDomain: "cluster.local", Namespace: "b", ServiceAccount: "b"}
)

// life is when a certificate is valid, counted from now.
type life struct{ from, to time.Duration }

func day() life { return life{-time.Minute, 24 * time.Hour} }

// pool is svid.Roots with one root.
type pool struct{ *x509.CertPool }

func (p pool) Roots(string) (*x509.CertPool, error) { return p.CertPool, nil }

// chain makes a root, an intermediate and a leaf with the lives given.
func chain(t *testing.T, root, inter, leaf life) (*svid.SVID, pool) {
	t.Helper()
	var parent *x509.Certificate
	var signer *ecdsa.PrivateKey
	var all []*x509.Certificate
	for i, l := range []life{root, inter, leaf} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		x := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{CommonName: []string{"root", "intermediate", ""}[i]},
			NotBefore: time.Now().Add(l.from), NotAfter: time.Now().Add(l.to), BasicConstraintsValid: true,
		}
		if i < 2 {
			x.IsCA, x.KeyUsage = true, x509.KeyUsageCertSign
		} else {
			u, err := url.Parse(a.String())
			if err != nil {
				t.Fatal(err)
			}
			x.URIs, x.KeyUsage = []*url.URL{u}, x509.KeyUsageDigitalSignature
			x.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
		}
		if parent == nil {
			parent, signer = x, key
		}
		der, err := x509.CreateCertificate(rand.Reader, x, parent, &key.PublicKey, signer)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		all, parent, signer = append(all, c), c, key
	}
	p := pool{x509.NewCertPool()}
	p.AddCert(all[0])
	return &svid.SVID{ID: a, Chain: []*x509.Certificate{all[2], all[1]}, Key: signer}, p
}

func TestLifeOfEachCertificateCounts(t *testing.T) { // ID-07
	gone, future := life{-48 * time.Hour, -time.Second}, life{time.Second, 24 * time.Hour}
	cases := []struct {
		name              string
		root, inter, leaf life
		ok                bool
	}{
		{"ID-07 all are valid", day(), day(), day(), true},
		{"ID-07 leaf has expired", day(), day(), gone, false},
		{"ID-07 intermediate has expired", day(), gone, day(), false},
		{"ID-07 root has expired", gone, day(), day(), false},
		{"ID-07 leaf begins in the future", day(), day(), future, false},
		{"ID-07 intermediate begins in the future", day(), future, day(), false},
		{"ID-07 root begins in the future", future, day(), day(), false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s, roots := chain(t, c.root, c.inter, c.leaf)
			for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
				if err := mtls.Verify(s.Chain, a.TrustDomain, roots, use, time.Time{}); (err == nil) != c.ok {
					t.Errorf("Verify = %v, want ok: %v", err, c.ok)
				}
			}
		})
	}
}

// handshake runs one and gives what each side says.
func handshake(t *testing.T, client, server *tls.Config) (state tls.ConnectionState, clientErr, serverErr error) {
	t.Helper()
	x, y := memnet.Pipe()
	defer x.Close()
	defer y.Close()
	cli, srv := tls.Client(x, client), tls.Server(y, server)
	done := make(chan error, 1)
	go func() { done <- cli.HandshakeContext(t.Context()) }()
	_, serverErr = mtls.Handshake(t.Context(), srv)
	if serverErr != nil {
		y.Close()
	}
	return srv.ConnectionState(), <-done, serverErr
}

func configs(ca svid.Source, roots svid.Roots) (client, server *tls.Config) {
	return mtls.Client(a, ca, roots, mtls.OneOf(b)),
		mtls.Server(func(*tls.ClientHelloInfo) (identity.ID, error) { return b, nil }, ca, roots, mtls.InTrustDomain("cluster.local"))
}

func TestPostQuantumOnly(t *testing.T) { // ID-14
	ca := fakeca.New(t)
	for _, c := range []struct {
		name           string
		client, server []tls.CurveID
		want           tls.CurveID // 0: refused
	}{
		{"ID-14 default", nil, nil, tls.X25519MLKEM768},
		{"ID-14 a client without it, default server", []tls.CurveID{tls.X25519}, nil, tls.X25519},
		{"ID-14 a client without it, strict server", []tls.CurveID{tls.X25519}, mtls.PostQuantum(), 0},
		{"ID-14 a strict client, server without it", mtls.PostQuantum(), []tls.CurveID{tls.X25519, tls.CurveP256}, 0},
		{"ID-14 both strict", mtls.PostQuantum(), mtls.PostQuantum(), tls.X25519MLKEM768},
	} {
		t.Run(c.name, func(t *testing.T) {
			client, server := configs(ca, ca)
			client.CurvePreferences, server.CurvePreferences = c.client, c.server
			state, _, err := handshake(t, client, server)
			if (err == nil) != (c.want != 0) || err == nil && state.CurveID != c.want {
				t.Errorf("%v with %v, want %v", err, state.CurveID, c.want)
			}
		})
	}
}

// revoking is a CA that knows of revocations.
type revoking struct {
	*fakeca.CA
	list *crl.List
}

func (r *revoking) Revoked(chain []*x509.Certificate) error { return r.list.Check(chain) }

// revoke puts a list with one serial number in force.
func (r *revoking) revoke(t *testing.T, serial *big.Int) {
	t.Helper()
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour),
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: serial, RevocationTime: time.Now()}},
	}, r.Root(), r.Key())
	if err != nil {
		t.Fatal(err)
	}
	if r.list, err = crl.Parse(der); err != nil {
		t.Fatal(err)
	}
}

func TestRevokedCertificatesAreRefused(t *testing.T) { // ID-16
	for _, who := range []identity.ID{a, b} {
		r := &revoking{CA: fakeca.New(t), list: &crl.List{}}
		client, server := configs(r, r)
		if _, cliErr, err := handshake(t, client, server); err != nil || cliErr != nil {
			t.Fatalf("before: %v, %v", cliErr, err)
		}
		s, err := r.SVID(t.Context(), who)
		if err != nil {
			t.Fatal(err)
		}
		r.revoke(t, s.Chain[0].SerialNumber)
		_, cliErr, srvErr := handshake(t, client, server)
		judge := srvErr // the side that looks at who's certificate
		if who == b {
			judge = cliErr
		}
		if _, ok := errors.AsType[*crl.RevokedError](judge); !ok || !strings.Contains(judge.Error(), who.String()) {
			t.Errorf("%s is revoked: %v and %v, want it refused for that", who, cliErr, srvErr)
		}
	}
}

func TestOpenConnectionsAreJudgedForRevocationOnly(t *testing.T) { // ID-16
	synctest.Test(t, func(t *testing.T) {
		r := &revoking{CA: fakeca.New(t), list: &crl.List{}}
		s, err := r.SVID(t.Context(), a)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(48 * time.Hour) // the certificate has ended
		if err := mtls.Recheck(s.Chain, r); err != nil {
			t.Errorf("one that has ended: %v, want it left alone", err)
		}
		if err := mtls.Recheck(s.Chain, fakeca.New(t)); err != nil {
			t.Errorf("one whose root is gone: %v, want it left alone", err)
		}
		r.revoke(t, s.Chain[0].SerialNumber)
		if err := mtls.Recheck(s.Chain, r); err == nil {
			t.Error("one that is revoked is left alone")
		}
	})
}
