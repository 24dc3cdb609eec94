package gateway

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/api/l7"
)

// authority issues web certificates.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t}
	a.key, a.cert, a.pem = a.issue(&x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "web root"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}, nil, nil)
	return a
}

func (a *authority) issue(tmpl, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*ecdsa.PrivateKey, *x509.Certificate, []byte) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	if parent == nil {
		parent, signer = tmpl, key
	}
	tmpl.NotBefore, tmpl.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return key, c, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func (a *authority) leaf(serial int64, name string) (chain, key []byte) {
	a.t.Helper()
	k, _, chain := a.issue(&x509.Certificate{
		SerialNumber: big.NewInt(serial), DNSNames: []string{name}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, a.key)
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		a.t.Fatal(err)
	}
	return chain, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func (a *authority) secret(resource string, serial int64, name string) *l7.Secret {
	chain, key := a.leaf(serial, name)
	return &l7.Secret{Name: resource, CertificateChain: chain, PrivateKey: key, CaCertificates: a.pem}
}

func (a *authority) browser(addr, name string, certs ...tls.Certificate) *http.Client {
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		ForceAttemptHTTP2: true, DisableKeepAlives: true,
		DialTLSContext: nil, TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: name, Certificates: certs},
	}}
}

func https(name, host, secret string) *l7.Listener {
	l := listener(8443, host)
	l.Name, l.Protocol, l.ServicePort, l.Routes = name, l7.Protocol_HTTPS, 443, "https."+name
	l.Tls = &l7.TLS{Secrets: []string{secret}}
	return l
}

func inSet(r *l7.Route, set string) *l7.Route {
	r.Name, r.Set = set+"/"+r.Name, set
	return r
}

func TestHTTPSByServerNameWithRotation(t *testing.T) {
	at, _ := web(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Proto-Seen", r.Header.Get("X-Forwarded-Proto"))
	})
	a := newAuthority(t)
	b := start(t, nil)
	redirect := route("shop.test")
	redirect.HttpsRedirect = true
	b.apply(
		backend("web", at), a.secret("shop", 10, "shop.test"), a.secret("blog", 20, "blog.test"),
		inSet(route("shop.test", to("web")), "https.l1"), inSet(route("blog.test", to("web")), "https.l2"),
		https("l1", "shop.test", "shop"), https("l2", "blog.test", "blog"), redirect, listener(8080, "shop.test"),
	)
	gw := b.at(8443)
	serial := func(name, host string) (int64, answer) {
		req, _ := http.NewRequestWithContext(t.Context(), "GET", "https://"+gw+"/x", nil)
		req.Host = host
		resp, err := a.browser(gw, name).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.TLS.PeerCertificates[0].SerialNumber.Int64(), answer{resp.StatusCode, resp.Proto, resp.Header}
	}
	if n, got := serial("shop.test", "shop.test"); n != 10 || got.status != 200 || got.body != "HTTP/2.0" || got.header.Get("Proto-Seen") != "https" {
		t.Errorf("shop: certificate %d, answer %v", n, got)
	}
	if n, got := serial("blog.test", "BLOG.test:443"); n != 20 || got.status != 200 {
		t.Errorf("blog: certificate %d, answer %v", n, got)
	}
	if _, got := serial("blog.test", "shop.test"); got.status != 421 {
		t.Errorf("a host that is not the server name's: %d, want 421", got.status)
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	kept, err := tls.Dial("tcp", gw, &tls.Config{ServerName: "shop.test", RootCAs: roots})
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	over := bufio.NewReader(kept)
	ask := func() {
		t.Helper()
		fmt.Fprint(kept, "GET /kept HTTP/1.1\r\nHost: shop.test\r\n\r\n")
		resp, err := http.ReadResponse(over, nil)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("over a connection that was open: %v, %v", resp, err)
		}
		resp.Body.Close()
	}
	ask()
	b.apply(a.secret("shop", 11, "shop.test"))
	ask() // the new certificate is for new connections; those that are open stay so
	if n, _ := serial("shop.test", "shop.test"); n != 11 {
		t.Errorf("after rotation: certificate %d, want 11", n)
	}
	// RT-12: a name nobody serves gets an alert, not somebody's certificate.
	if c, err := tls.Dial("tcp", gw, &tls.Config{ServerName: "other.test", InsecureSkipVerify: true}); err == nil {
		c.Close()
		t.Error("a handshake for an unknown name succeeded")
	}
	if got := get(t, browser(t), "http://"+b.at(8080)+"/a?b=c", "shop.test"); got.status != 301 || got.header.Get("Location") != "https://shop.test/a?b=c" {
		t.Errorf("plain: %d to %q", got.status, got.header.Get("Location"))
	}
	b.log.find(t, "shop.test", `"GET /x HTTP/2.0" 200`)
}

func TestMutualTLSAdmitsOnlyItsClients(t *testing.T) {
	at, received := web(t, func(http.ResponseWriter, *http.Request) {})
	a, foreign := newAuthority(t), newAuthority(t)
	b := start(t, nil)
	l := https("l1", "b2b.test", "b2b")
	l.Tls.Mode, l.Tls.SubjectAltNames = l7.TLS_MUTUAL, []string{"partner.test"}
	b.apply(backend("web", at), a.secret("b2b", 10, "b2b.test"), inSet(route("b2b.test", to("web")), "https.l1"), l)
	gw := b.at(8443)
	try := func(certs ...tls.Certificate) error {
		req, _ := http.NewRequestWithContext(t.Context(), "GET", "https://"+gw+"/", nil)
		req.Host = "b2b.test"
		resp, err := a.browser(gw, "b2b.test", certs...).Do(req)
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	pair := func(x *authority, name string) tls.Certificate {
		chain, key := x.leaf(99, name)
		c, err := tls.X509KeyPair(chain, key)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if try() == nil || try(pair(foreign, "partner.test")) == nil || try(pair(a, "stranger.test")) == nil {
		t.Error("a client without an admitted certificate was served")
	}
	if n := received(); n != 0 {
		t.Errorf("the backend received %d bytes of refused clients", n)
	}
	if err := try(pair(a, "partner.test")); err != nil {
		t.Errorf("the partner was refused: %v", err)
	}
}

func TestNoSecretNoService(t *testing.T) {
	a := newAuthority(t)
	b := start(t, nil)
	b.apply(inSet(route("shop.test"), "https.l1"), https("l1", "shop.test", "shop"))
	if c, err := tls.Dial("tcp", b.at(8443), &tls.Config{ServerName: "shop.test", InsecureSkipVerify: true}); err == nil {
		c.Close()
		t.Error("a handshake without a certificate succeeded")
	}
	b.apply(a.secret("shop", 1, "shop.test"))
	c, err := tls.Dial("tcp", b.at(8443), &tls.Config{ServerName: "shop.test", InsecureSkipVerify: true})
	if err != nil {
		t.Fatalf("after the secret came: %v", err)
	}
	c.Close()
	if !strings.HasPrefix(c.ConnectionState().PeerCertificates[0].DNSNames[0], "shop") {
		t.Error("another certificate was shown")
	}
}
