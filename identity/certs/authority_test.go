package certs

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"github.com/ambit-mesh/ambit/api/ca"
	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/internal/testkit/fakeca"
	"github.com/ambit-mesh/ambit/internal/testkit/memnet"
)

// answer makes what a certificate service says to a request.
type answer func(ctx context.Context, req *ca.IstioCertificateRequest) (*ca.IstioCertificateResponse, error)

// authorityOf makes a client of a service that answers so, over real TLS.
func authorityOf(t *testing.T, root *fakeca.CA, f answer) *CA {
	l := memnet.Listen("10.0.0.1:15012")
	cert := root.Issue(identity.ID{TrustDomain: "cluster.local", Namespace: "istio-system", ServiceAccount: "istiod"},
		func(c *x509.Certificate) { c.DNSNames = []string{"istiod.istio-system.svc"} }).TLS()
	gs := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{*cert}, MinVersion: tls.VersionTLS13})))
	gs.RegisterService(&grpc.ServiceDesc{
		ServiceName: "istio.v1.auth.IstioCertificateService", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{
			MethodName: "CreateCertificate",
			Handler: func(_ any, ctx context.Context, read func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				req := &ca.IstioCertificateRequest{}
				if err := read(req); err != nil {
					return nil, err
				}
				return f(ctx, req)
			},
		}},
	}, nil)
	done := make(chan error, 1)
	go func() { done <- gs.Serve(l) }()
	t.Cleanup(func() {
		gs.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	pool := x509.NewCertPool()
	pool.AddCert(root.Root())
	return &CA{
		Address: "passthrough:istiod", ClusterID: "Kubernetes", Impersonate: true,
		TLS: func() (*tls.Config, error) {
			return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool, ServerName: "istiod.istio-system.svc"}, nil
		},
		Token: func() (string, error) { return "token", nil },
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return l.Dial(ctx)
		})},
	}
}

func csrOf(t *testing.T, req *ca.IstioCertificateRequest) *x509.CertificateRequest {
	block, _ := pem.Decode([]byte(req.GetCsr()))
	if block == nil {
		t.Fatalf("no CSR in %q", req.GetCsr())
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

// leaf signs for a key what is an ordinary leaf unless change makes it something else.
func leaf(t *testing.T, root *fakeca.CA, pub any, change func(*x509.Certificate)) string {
	uri, err := url.Parse(sleep.String())
	if err != nil {
		t.Fatal(err)
	}
	x := &x509.Certificate{
		SerialNumber: big.NewInt(7), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		URIs: []*url.URL{uri}, KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	change(x)
	der, err := x509.CreateCertificate(rand.Reader, x, root.Root(), pub, root.Key())
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func ordinary(*x509.Certificate) {}

func TestAsksAsIstioDoes(t *testing.T) {
	root := fakeca.New(t)
	c := authorityOf(t, root, func(ctx context.Context, req *ca.IstioCertificateRequest) (*ca.IstioCertificateResponse, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		if got := strings.Join(append(md.Get("authorization"), md.Get("clusterid")...), " "); got != "Bearer token Kubernetes" {
			t.Errorf("credentials %q", got)
		}
		csr := csrOf(t, req)
		key, ok := csr.PublicKey.(*ecdsa.PublicKey)
		if !ok || key.Curve != elliptic.P256() || csr.SignatureAlgorithm != x509.ECDSAWithSHA256 {
			t.Errorf("key %T, signature %v", csr.PublicKey, csr.SignatureAlgorithm)
		}
		if s := csr.Subject.String(); s != "" || len(csr.URIs) != 1 || csr.URIs[0].String() != sleep.String() || len(csr.DNSNames) > 0 {
			t.Errorf("subject %q, names %v %v", s, csr.URIs, csr.DNSNames)
		}
		if got := req.GetMetadata().GetFields()["ImpersonatedIdentity"].GetStringValue(); got != sleep.String() || req.GetValidityDuration() != 86400 {
			t.Errorf("impersonates %q for %d s", got, req.GetValidityDuration())
		}
		return &ca.IstioCertificateResponse{CertChain: []string{leaf(t, root, csr.PublicKey, ordinary), string(root.PEM())}}, nil
	})
	got, err := c.Issue(within(t, 10*time.Second), sleep)
	if err != nil {
		t.Fatal(err)
	}
	if got.SVID.ID != sleep || len(got.SVID.Chain) != 1 || len(got.Roots) != 1 || !got.Roots[0].Equal(root.Root()) {
		t.Errorf("issued %+v", got)
	}
}

// Whatever else an authority answers is refused: an identity is never shown with a certificate that is not exactly its own.
func TestRefusesWhatWasNotAskedFor(t *testing.T) {
	root, foreign := fakeca.New(t), fakeca.New(t)
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	name := func(uris ...string) func(*x509.Certificate) {
		return func(x *x509.Certificate) { fakeca.URIs(uris...)(x) }
	}
	end := string(root.PEM())
	cases := []struct {
		name  string
		chain func(pub any) []string
		want  string
	}{
		{"another identity", func(pub any) []string {
			return []string{leaf(t, root, pub, name("spiffe://cluster.local/ns/a/sa/admin")), end}
		}, "asked for"},
		{"two identities", func(pub any) []string {
			return []string{leaf(t, root, pub, name(sleep.String(), "spiffe://cluster.local/ns/a/sa/admin")), end}
		}, "2 URI names"},
		{"no identity", func(pub any) []string { return []string{leaf(t, root, pub, name()), end} }, "0 URI names"},
		{"another key", func(any) []string { return []string{leaf(t, root, &other.PublicKey, ordinary), end} }, "another key"},
		{"a leaf that is an authority", func(pub any) []string {
			return []string{leaf(t, root, pub, func(x *x509.Certificate) { x.IsCA = true }), end}
		}, "is a CA"},
		{"a leaf that may sign", func(pub any) []string {
			return []string{leaf(t, root, pub, func(x *x509.Certificate) { x.KeyUsage |= x509.KeyUsageCRLSign }), end}
		}, "may sign"},
		{"for servers only", func(pub any) []string {
			return []string{leaf(t, root, pub, func(x *x509.Certificate) { x.ExtKeyUsage = x.ExtKeyUsage[:1] }), end}
		}, "not for this use"},
		{"expired", func(pub any) []string {
			return []string{leaf(t, root, pub, func(x *x509.Certificate) { x.NotAfter = time.Now().Add(-time.Second) }), end}
		}, "expired"},
		{"a root that did not sign it", func(pub any) []string { return []string{leaf(t, root, pub, ordinary), string(foreign.PEM())} }, "unknown authority"},
		{"no root", func(pub any) []string { return []string{leaf(t, root, pub, ordinary)} }, "1 certificates"},
		{"nothing", func(any) []string { return nil }, "0 certificates"},
		{"garbage", func(any) []string {
			return []string{"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", end}
		}, "issued chain"},
		{"an endless chain", func(pub any) []string {
			return append([]string{leaf(t, root, pub, ordinary)}, strings.Repeat(end, 50))
		}, "51 certificates"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			c := authorityOf(t, root, func(_ context.Context, req *ca.IstioCertificateRequest) (*ca.IstioCertificateResponse, error) {
				return &ca.IstioCertificateResponse{CertChain: tc.chain(csrOf(t, req).PublicKey)}, nil
			})
			if got, err := c.Issue(within(t, 10*time.Second), sleep); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("issued %+v, error %v, want %q", got.SVID, err, tc.want)
			}
		})
	}
}

func TestRefusesAnAuthorityOfAnotherRoot(t *testing.T) {
	c := authorityOf(t, fakeca.New(t), func(context.Context, *ca.IstioCertificateRequest) (*ca.IstioCertificateResponse, error) {
		t.Error("a stranger was asked, and given our token")
		return nil, context.Canceled
	})
	c.TLS = func() (*tls.Config, error) {
		pool := x509.NewCertPool()
		pool.AddCert(fakeca.New(t).Root())
		return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool, ServerName: "istiod.istio-system.svc"}, nil
	}
	if _, err := c.Issue(within(t, 10*time.Second), sleep); err == nil {
		t.Error("issued by a stranger")
	}
}

// Bytes of whatever kind in an answer are refused or are what was asked for; nothing panics.
func FuzzCheck(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "")
	f.Add(string(fakeca.New(f).PEM()), string(fakeca.New(f).PEM()))
	f.Fuzz(func(t *testing.T, a, b string) {
		if _, err := check([]string{a, b}, sleep, key); err == nil {
			t.Fatal("somebody signed our key")
		}
	})
}
