package ca

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/structpb"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/api/ca"
	"github.com/ambit-mesh/ambit/control/source"
	"github.com/ambit-mesh/ambit/identity/svid"
)

// fixed are tokens by their text.
type fixed map[string]source.Caller

func (f fixed) Verify(_ context.Context, token string) (source.Caller, error) {
	if c, ok := f[token]; ok {
		return c, nil
	}
	return source.Caller{}, errors.New("secret detail of why not")
}

type podList []*corev1.Pod

func (l podList) Get(key string) (*corev1.Pod, bool) {
	for _, p := range l {
		if p.Namespace+"/"+p.Name == key {
			return p, true
		}
	}
	return nil, false
}

func (l podList) Running(node, ns, account string) (out []*corev1.Pod) {
	for _, p := range l {
		if p.Spec.NodeName == node && p.Namespace == ns && p.Spec.ServiceAccountName == account {
			out = append(out, p)
		}
	}
	return out
}

func pod(ns, name, account, node string, phase corev1.PodPhase) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, UID: types.UID("uid-" + name)},
		Spec:       corev1.PodSpec{ServiceAccountName: account, NodeName: node}, Status: corev1.PodStatus{Phase: phase},
	}
}

// rig is a CA behind real gRPC.
type rig struct {
	t       *testing.T
	conn    *grpc.ClientConn
	ca      *Authority
	now     time.Time
	mu      sync.Mutex
	counted map[string]int
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, now: time.Now(), counted: map[string]int{}}
	var err error
	if r.ca, err = NewSelfSigned("cluster.local", r.now); err != nil {
		t.Fatal(err)
	}
	caller := func(ns, account, pod, node string) source.Caller {
		return source.Caller{Namespace: ns, ServiceAccount: account, Pod: pod, PodUID: "uid-" + pod, Node: node}
	}
	s := &Server{
		Authority: func() *Authority { return r.ca },
		Callers: fixed{
			"z1":     caller("istio-system", "ztunnel", "z1", "n1"),
			"z2":     caller("istio-system", "ztunnel", "z2", "n2"),
			"web":    caller("default", "web", "web", "n1"),
			"gone":   caller("istio-system", "ztunnel", "gone", "n1"),
			"moved":  caller("istio-system", "ztunnel", "z1", "n2"),
			"reborn": {Namespace: "istio-system", ServiceAccount: "ztunnel", Pod: "z1", PodUID: "earlier", Node: "n1"},
			"loose":  {Namespace: "istio-system", ServiceAccount: "ztunnel"},
		},
		Rules: Rules{TrustDomain: "cluster.local", Trusted: []string{"istio-system/ztunnel"}, Pods: podList{
			pod("istio-system", "z1", "ztunnel", "n1", corev1.PodRunning), pod("istio-system", "z2", "ztunnel", "n2", corev1.PodRunning),
			pod("default", "web", "web", "n1", corev1.PodRunning), pod("default", "far", "far", "n2", corev1.PodRunning),
			pod("default", "done", "done", "n1", corev1.PodSucceeded), pod("default", "failed", "done", "n1", corev1.PodFailed),
			pod("default", "starting", "starting", "n1", corev1.PodPending),
		}},
		Log: slog.New(slog.DiscardHandler), Now: func() time.Time { r.mu.Lock(); defer r.mu.Unlock(); return r.now },
		Count: func(result string) { r.mu.Lock(); defer r.mu.Unlock(); r.counted[result]++ },
	}
	l := bufconn.Listen(1 << 20)
	g := grpc.NewServer()
	s.Register(g)
	go func() { _ = g.Serve(l) }() // ends with Stop, which waits for it
	t.Cleanup(g.Stop)
	r.conn, err = grpc.NewClient("passthrough:ca", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.conn.Close() })
	return r
}

type request struct {
	token, asked, csr string
	seconds           int64
	more              []string // further metadata, key and value
}

func (r *rig) ask(q request) (*x509.Certificate, []string, error) {
	r.t.Helper()
	req := &ca.IstioCertificateRequest{Csr: q.csr, ValidityDuration: q.seconds}
	if q.csr == "" {
		req.Csr = csr(r.t, ecKey(r.t, elliptic.P256()), &x509.CertificateRequest{})
	}
	if q.asked != "" {
		req.Metadata = &structpb.Struct{Fields: map[string]*structpb.Value{"ImpersonatedIdentity": structpb.NewStringValue(q.asked)}}
	}
	ctx := metadata.AppendToOutgoingContext(r.t.Context(), q.more...)
	if q.token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+q.token)
	}
	resp := &ca.IstioCertificateResponse{}
	if err := r.conn.Invoke(ctx, "/istio.v1.auth.IstioCertificateService/CreateCertificate", req, resp); err != nil {
		return nil, nil, err
	}
	block, _ := pem.Decode([]byte(resp.CertChain[0]))
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		r.t.Fatal(err)
	}
	return leaf, resp.CertChain, nil
}

func ecKey(t testing.TB, c elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func csr(t testing.TB, key crypto.Signer, template *x509.CertificateRequest) string {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

const webID = "spiffe://cluster.local/ns/default/sa/web"

// CA-01, CA-03, CA-04, CA-15: who may not have what, all in the same words.
func TestRefusals(t *testing.T) {
	r := newRig(t)
	for name, q := range map[string]request{
		"CA-01: no token":                             {},
		"CA-01: garbage token":                        {token: "x"},
		"CA-03: a workload acts for another":          {token: "web", asked: "spiffe://cluster.local/ns/default/sa/far"},
		"CA-03: a workload acts for itself by name":   {token: "web", asked: webID},
		"CA-04: identity of another node":             {token: "z1", asked: "spiffe://cluster.local/ns/default/sa/far"},
		"identity that nothing runs as":               {token: "z1", asked: "spiffe://cluster.local/ns/default/sa/admin"},
		"identity of pods that have ended":            {token: "z1", asked: "spiffe://cluster.local/ns/default/sa/done"},
		"identity of another trust domain":            {token: "z1", asked: "spiffe://other/ns/default/sa/web"},
		"identity that is none":                       {token: "z1", asked: "spiffe://cluster.local/ns/default/sa/web/../admin"},
		"token of a pod that is gone":                 {token: "gone", asked: webID},
		"token of a pod that was there before":        {token: "reborn", asked: webID},
		"token of another node than its pod's":        {token: "moved", asked: webID},
		"token that is bound to no pod":               {token: "loose", asked: webID},
		"CA-15: two tokens":                           {token: "z1", asked: webID, more: []string{"authorization", "Bearer web"}},
		"CA-15: a forwarded certificate and no token": {asked: webID, more: []string{"x-forwarded-client-cert", "URI=spiffe://cluster.local/ns/istio-system/sa/ztunnel"}},
		"a token that is no bearer's":                 {more: []string{"authorization", "Basic z1"}},
	} {
		leaf, _, err := r.ask(q)
		if err == nil {
			t.Errorf("%s: issued %v", name, leaf.URIs)
			continue
		}
		if s := status.Convert(err); s.Code() != codes.Unauthenticated || s.Message() != refused {
			t.Errorf("%s: %v %q, want Unauthenticated %q", name, s.Code(), s.Message(), refused)
		}
	}
	if r.counted["success"] != 0 {
		t.Errorf("counted %v", r.counted)
	}
}

// CA-05: what is issued is what was allowed, and nothing more.
func TestIssued(t *testing.T) {
	r := newRig(t)
	for name, c := range map[string]struct {
		q    request
		want string
	}{
		"a pod of the node":            {request{token: "z1", asked: webID}, webID},
		"a pod that is starting":       {request{token: "z1", asked: "spiffe://cluster.local/ns/default/sa/starting"}, "spiffe://cluster.local/ns/default/sa/starting"},
		"a caller's own":               {request{token: "web"}, webID},
		"CA-15: a token beside claims": {request{token: "web", more: []string{"x-forwarded-client-cert", "URI=spiffe://cluster.local/ns/istio-system/sa/ztunnel"}}, webID},
	} {
		leaf, chain, err := r.ask(c.q)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(leaf.URIs) != 1 || leaf.URIs[0].String() != c.want || len(leaf.DNSNames)+len(leaf.IPAddresses)+len(leaf.EmailAddresses) != 0 {
			t.Errorf("%s: names %v %v", name, leaf.URIs, leaf.DNSNames)
		}
		for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
			if err := svid.CheckLeaf(leaf, use); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if _, err := leaf.Verify(x509.VerifyOptions{Roots: r.ca.Pool(), KeyUsages: []x509.ExtKeyUsage{use}}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if last := chain[len(chain)-1]; last != string(r.ca.Roots()) || len(chain) != 2 {
			t.Errorf("%s: chain of %d does not end with the root", name, len(chain))
		}
		critical := false
		for _, e := range leaf.Extensions {
			critical = critical || e.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 17}) && e.Critical
		}
		if !critical || len(leaf.Subject.Names) != 0 {
			t.Errorf("%s: subject %v, alternative name critical %v", name, leaf.Subject, critical)
		}
	}
}

// CA-09: the key is all of a request that counts.
func TestRequestIsIgnored(t *testing.T) {
	r := newRig(t)
	admin, err := url.Parse("spiffe://cluster.local/ns/istio-system/sa/admin")
	if err != nil {
		t.Fatal(err)
	}
	wish, err := asn1.Marshal(struct{ CA bool }{true})
	if err != nil {
		t.Fatal(err)
	}
	key := ecKey(t, elliptic.P384())
	leaf, _, err := r.ask(request{token: "web", csr: csr(t, key, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "admin"}, URIs: []*url.URL{admin}, DNSNames: []string{"istiod.istio-system.svc"},
		ExtraExtensions: []pkix.Extension{
			{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: wish},
			{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Critical: true, Value: []byte{3, 2, 2, 4}},
		},
	})})
	if err != nil {
		t.Fatal(err)
	}
	if leaf.IsCA || leaf.KeyUsage != x509.KeyUsageDigitalSignature || leaf.URIs[0].String() != webID || len(leaf.URIs) != 1 || len(leaf.DNSNames) != 0 || leaf.Subject.CommonName != "" {
		t.Errorf("leaf is CA %v, usage %v, names %v %v, subject %v", leaf.IsCA, leaf.KeyUsage, leaf.URIs, leaf.DNSNames, leaf.Subject)
	}
	if !key.PublicKey.Equal(leaf.PublicKey) {
		t.Error("the leaf has another key than the request")
	}
}

// CA-10: keys and requests that nobody should certify.
func TestBadRequests(t *testing.T) {
	r := newRig(t)
	whole := csr(t, ecKey(t, elliptic.P256()), &x509.CertificateRequest{})
	block, _ := pem.Decode([]byte(whole))
	block.Bytes[len(block.Bytes)-1] ^= 1
	broken := string(pem.EncodeToMemory(block))
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Skipf("this toolchain makes no key of 1024 bits: %v", err)
	}
	for name, text := range map[string]string{
		"RSA-1024":         csr(t, small, &x509.CertificateRequest{}),
		"P-224":            csr(t, ecKey(t, elliptic.P224()), &x509.CertificateRequest{}),
		"the CA's own key": csr(t, r.ca.key, &x509.CertificateRequest{}),
		"broken signature": broken,
		"two blocks":       whole + whole,
		"bytes behind":     whole + "x",
		"a certificate":    string(r.ca.Roots()),
		"1 MiB":            strings.Repeat("A", 1<<20),
		"no PEM":           "hello",
	} {
		_, _, err := r.ask(request{token: "web", csr: text})
		if s := status.Convert(err); s.Code() != codes.InvalidArgument || s.Message() != refused {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, key := range map[string]crypto.PublicKey{
		"exponent 1": &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 2047), E: 1},
		"RSA-8192":   &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 8191), E: 65537},
		"no key":     nil,
	} {
		if checkKey(key) == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

// CA-11: lifetimes.
func TestLifetimes(t *testing.T) {
	r := newRig(t)
	for name, c := range map[string]struct {
		seconds int64
		want    time.Duration
	}{
		"none":           {0, DefaultTTL},
		"negative":       {-1, DefaultTTL},
		"an hour":        {3600, time.Hour},
		"100 years":      {100 * 365 * 86400, MaxTTL},
		"beyond numbers": {1 << 62, MaxTTL},
	} {
		leaf, _, err := r.ask(request{token: "web", seconds: c.seconds})
		if err != nil {
			t.Fatal(err)
		}
		if got := leaf.NotAfter.Sub(r.now); got > c.want || got < c.want-2*time.Second {
			t.Errorf("%s: lives %v, want %v", name, got, c.want)
		}
		if back := r.now.Sub(leaf.NotBefore); back < time.Minute || back > 3*time.Minute {
			t.Errorf("%s: begins %v ago", name, back)
		}
	}
	r.mu.Lock()
	r.now = r.ca.Root().NotAfter.Add(-time.Hour)
	r.mu.Unlock()
	leaf, _, err := r.ask(request{token: "web"})
	if err != nil || leaf.NotAfter.After(r.ca.Root().NotAfter) {
		t.Errorf("beyond the issuer's end: %v, %v", leaf, err)
	}
	r.mu.Lock()
	r.now = r.ca.Root().NotAfter.Add(time.Hour)
	r.mu.Unlock()
	if _, _, err := r.ask(request{token: "web"}); status.Code(err) != codes.Internal {
		t.Errorf("a CA that has ended signs: %v", err)
	}
}

// CA-14: one node's flood is its own.
func TestFloodOfOneNode(t *testing.T) {
	r := newRig(t)
	text := csr(t, ecKey(t, elliptic.P256()), &x509.CertificateRequest{})
	limited := 0
	for range burst + 100 {
		if _, _, err := r.ask(request{token: "z1", asked: webID, csr: text}); status.Code(err) == codes.ResourceExhausted {
			limited++
		}
	}
	if limited != 100 {
		t.Errorf("%d of %d were limited, want 100", limited, burst+100)
	}
	if _, _, err := r.ask(request{token: "z2", asked: "spiffe://cluster.local/ns/default/sa/far"}); err != nil {
		t.Errorf("another node: %v", err)
	}
	r.mu.Lock()
	r.now = r.now.Add(time.Second)
	r.mu.Unlock()
	if _, _, err := r.ask(request{token: "z1", asked: webID, csr: text}); err != nil {
		t.Errorf("a second later: %v", err)
	}
}

// CA-14: a node that asks without end is held to its share, and another's requests are answered in well under a second.
func TestCA14FloodAndAnotherNode(t *testing.T) {
	r := newRig(t)
	text := csr(t, ecKey(t, elliptic.P256()), &x509.CertificateRequest{})
	stop := make(chan struct{})
	var flood sync.WaitGroup
	var asked, issued atomic.Int64
	for range 16 {
		flood.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				asked.Add(1)
				if _, _, err := r.ask(request{token: "z1", asked: webID, csr: text}); err == nil {
					issued.Add(1)
				}
			}
		})
	}
	var took []time.Duration
	for range 100 {
		begin := time.Now()
		if _, _, err := r.ask(request{token: "z2", asked: "spiffe://cluster.local/ns/default/sa/far", csr: text}); err != nil {
			t.Errorf("the other node: %v", err)
		}
		took = append(took, time.Since(begin))
	}
	close(stop)
	flood.Wait()
	slices.Sort(took)
	t.Logf("of %d requests of one node %d were granted; another's took %v in the median, %v at most", asked.Load(), issued.Load(), took[50], took[99])
	if issued.Load() > burst || took[99] > time.Second {
		t.Error("one node's flood is felt")
	}
}

// An authority is the same after it was kept in a Secret; a Secret that does not fit together is refused.
func TestSecret(t *testing.T) {
	now := time.Now()
	a, err := NewSelfSigned("cluster.local", now)
	if err != nil {
		t.Fatal(err)
	}
	s, err := a.Secret("istio-system")
	if err != nil {
		t.Fatal(err)
	}
	b, err := FromSecret(s, now)
	if err != nil || !b.Root().Equal(a.Root()) || string(b.Roots()) != string(a.Roots()) {
		t.Fatalf("read back: %v", err)
	}
	other, err := NewSelfSigned("cluster.local", now)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := other.Secret("istio-system")
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(map[string][]byte){
		"another key":  func(m map[string][]byte) { m[keyKey] = foreign.Data[keyKey] },
		"another root": func(m map[string][]byte) { m[rootKey] = foreign.Data[certKey] },
		"no key":       func(m map[string][]byte) { delete(m, keyKey) },
		"garbage":      func(m map[string][]byte) { m[certKey] = []byte("x") },
	} {
		m := s.DeepCopy()
		change(m.Data)
		if _, err := FromSecret(m, now); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	if _, err := FromSecret(s, now.Add(RootTTL+time.Hour)); err == nil {
		t.Error("a root that has ended is accepted")
	}
}

func FuzzRequestKey(f *testing.F) {
	f.Add(csr(f, ecKey(f, elliptic.P256()), &x509.CertificateRequest{}))
	f.Add("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n")
	f.Fuzz(func(t *testing.T, text string) {
		if key, err := requestKey(text); err == nil && checkKey(key) != nil {
			t.Fatalf("a weak key passed: %T", key)
		}
	})
}
