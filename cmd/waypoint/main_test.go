package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/ambit-mesh/ambit/api/ca"
	"github.com/ambit-mesh/ambit/api/l7"
	"github.com/ambit-mesh/ambit/collection"
	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/internal/testkit/fakeca"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/telemetry"
	"github.com/ambit-mesh/ambit/xds/delta"
	"github.com/ambit-mesh/ambit/xds/server"
)

// plane is a control plane and certificate authority on loopback.
type plane struct {
	ca   *fakeca.CA
	addr string
	sets map[string]*collection.Set[delta.Resource]
}

func newPlane(t *testing.T) *plane {
	t.Helper()
	g := collection.NewGraph()
	p := &plane{ca: fakeca.New(t), sets: map[string]*collection.Set[delta.Resource]{}}
	conf := server.Config[string]{Authenticate: caller, Log: slog.New(slog.DiscardHandler)}
	for _, url := range []string{mesh.TypeListener, mesh.TypeRoute, mesh.TypeBackend, mesh.TypeSecret} {
		p.sets[url] = collection.NewSet(g, func(r delta.Resource) string { return r.Name }, func(a, b delta.Resource) bool { return a.Version == b.Version })
		conf.Types = append(conf.Types, server.Type[string]{URL: url, Resources: p.sets[url]})
	}
	for _, s := range p.sets {
		s.MarkSynced()
	}
	xds := server.New(conf)
	t.Cleanup(xds.Close)
	own := p.ca.Issue(identity.ID{TrustDomain: "cluster.local", Namespace: "istio-system", ServiceAccount: "istiod"},
		func(c *x509.Certificate) { c.DNSNames = []string{mesh.IstiodHost} })
	gs := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{*own.TLS()}, MinVersion: tls.VersionTLS13})))
	xds.Register(gs)
	gs.RegisterService(&grpc.ServiceDesc{ServiceName: "istio.v1.auth.IstioCertificateService", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{
		MethodName: "CreateCertificate", Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			req := &ca.IstioCertificateRequest{}
			if err := decode(req); err != nil {
				return nil, err
			}
			if _, err := caller(ctx); err != nil {
				return nil, err
			}
			return p.sign(req)
		},
	}}}, p)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.addr = l.Addr().String()
	go func() { _ = gs.Serve(l) }() // ends with Stop
	t.Cleanup(gs.Stop)
	return p
}

func caller(ctx context.Context) (string, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	if strings.Join(md.Get("authorization"), "") != "Bearer the-token" || strings.Join(md.Get("clusterid"), "") != "Kubernetes" {
		return "", errors.New("no token")
	}
	return "gateway", nil
}

func (p *plane) sign(req *ca.IstioCertificateRequest) (*ca.IstioCertificateResponse, error) {
	block, _ := pem.Decode([]byte(req.GetCsr()))
	if block == nil {
		return nil, errors.New("no request")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour), URIs: csr.URIs,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}, p.ca.Root(), csr.PublicKey, p.ca.Key())
	if err != nil {
		return nil, err
	}
	leaf := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return &ca.IstioCertificateResponse{CertChain: []string{leaf, string(p.ca.PEM())}}, nil
}

func (p *plane) put(t *testing.T, version string, ms ...proto.Message) {
	t.Helper()
	for _, m := range ms {
		body, err := anypb.New(m)
		if err != nil {
			t.Fatal(err)
		}
		p.sets[body.GetTypeUrl()].Put(delta.Resource{Name: m.(interface{ GetName() string }).GetName(), Version: version, Body: body})
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func fetch(url string) (int, string) {
	resp, err := http.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(b)
}

// until asks again until the answer is what is wanted.
func until(t *testing.T, url string, status int, body string) {
	t.Helper()
	var s int
	var b string
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if s, b = fetch(url); s == status && strings.Contains(b, body) {
			return
		}
	}
	t.Fatalf("%s answers %d %q, want %d %q", url, s, b, status, body)
}

func TestGatewayFromControlPlaneToDrain(t *testing.T) {
	p := newPlane(t)
	began, finish := make(chan struct{}), make(chan struct{})
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(began)
			<-finish
		}
		fmt.Fprint(w, "hello")
	}))
	defer app.Close()
	at := netip.MustParseAddrPort(app.Listener.Addr().String())
	port, ready, metrics, debug, prom := freePort(t), freePort(t), freePort(t), freePort(t), freePort(t)
	dir := t.TempDir()
	token, root := filepath.Join(dir, "token"), filepath.Join(dir, "root.pem")
	for file, b := range map[string][]byte{token: []byte("the-token\n"), root: p.ca.PEM()} {
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	env := map[string]string{
		"POD_NAME": "istio-ingressgateway-7d-x2", "POD_NAMESPACE": "istio-system", "SERVICE_ACCOUNT": "gw", "INSTANCE_IP": "127.0.0.1", "XDS_ADDRESS": p.addr,
	}
	c, err := parse([]string{
		"proxy", "router", "-token", token, "-root", root, "-settle", "50ms", "-grace", "10s",
		"-readiness", fmt.Sprintf("127.0.0.1:%d", ready), "-metrics", fmt.Sprintf("127.0.0.1:%d", metrics), "-admin", fmt.Sprintf("127.0.0.1:%d", debug),
		"-prometheus", fmt.Sprintf("127.0.0.1:%d", prom),
	}, func(k string) string { return env[k] }, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	levels, err := telemetry.ParseLevels("info")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- serve(ctx, c, slog.New(slog.DiscardHandler), levels) }()
	base := fmt.Sprintf("http://127.0.0.1:%d", port)
	p.put(t, "1",
		&l7.Backend{Name: "b", Hostname: "app.default.svc.cluster.local", Port: 80, Endpoints: []*l7.Endpoint{{Address: at.Addr().String(), Port: uint32(at.Port())}}},
		&l7.Route{Name: "r", Set: "s", Hosts: []string{"*"}, Rules: []*l7.Rule{{Action: &l7.Rule_Forward{Forward: &l7.Forward{Destinations: []*l7.Destination{{Backend: "b", Weight: 1}}}}}}},
		&l7.Listener{Name: "l", Port: uint32(port), ServicePort: 80, Protocol: l7.Protocol_HTTP, Hosts: []string{"*"}, Bind: "127.0.0.1", Routes: "s"})
	until(t, fmt.Sprintf("http://127.0.0.1:%d/healthz/ready", ready), 200, "ready")
	until(t, base+"/", 200, "hello")
	until(t, fmt.Sprintf("http://127.0.0.1:%d/stats/prometheus", prom), 200, `istio_build{component="waypoint",tag="dev"} 1`)
	for _, p := range []int{metrics, prom} {
		until(t, fmt.Sprintf("http://127.0.0.1:%d/stats/prometheus", p), 200, `destination_service="app.default.svc.cluster.local"`)
	}

	until(t, fmt.Sprintf("http://127.0.0.1:%d/config_dump", debug), 200, "app.default.svc.cluster.local")

	// A request in flight when the end is asked for is answered; readiness tells at once.
	slow := make(chan string, 1)
	go func() {
		s, b := fetch(base + "/slow")
		slow <- fmt.Sprint(s, " ", b)
	}()
	<-began
	stop()
	until(t, fmt.Sprintf("http://127.0.0.1:%d/healthz/ready", ready), 500, "draining")
	close(finish)
	if got := <-slow; got != "200 hello" {
		t.Errorf("request in flight: %s", got)
	}
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("serve: %v", err)
		}
	case <-time.After(15 * time.Second):
		t.Fatal("the gateway does not end")
	}
	if s, _ := fetch(base + "/"); s != 0 {
		t.Error("the port is still served")
	}
}

func TestMissingEnvironmentIsNamed(t *testing.T) {
	env := map[string]string{"POD_NAME": "x", "POD_NAMESPACE": "y", "INSTANCE_IP": "z"}
	_, err := parse(nil, func(k string) string { return env[k] }, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "SERVICE_ACCOUNT") {
		t.Errorf("error %v, want one that names SERVICE_ACCOUNT", err)
	}
	if _, err := parse([]string{"proxy", "sidecar"}, func(string) string { return "x" }, io.Discard); err == nil {
		t.Error("an unknown role was taken")
	}
}
