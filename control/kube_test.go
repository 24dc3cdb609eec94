package control_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/structpb"

	capb "github.com/ambit-mesh/ambit/api/ca"
	"github.com/ambit-mesh/ambit/control"
	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/control/source/kube"
	"github.com/ambit-mesh/ambit/internal/testkit/kubeapi"
	"github.com/ambit-mesh/ambit/mesh"
)

// patience is how long something may take that must happen.
const patience = 90 * time.Second

func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not after %s: %s", patience, what)
		}
	}
}

// replica is a control plane over an API server.
type replica struct {
	api    *kubeapi.Server
	source *kube.Source
	lease  *kube.Lease
	xds    string
	debug  string
	stop   func()
}

// startReplica runs a control plane as the account istiod.
func startReplica(t testing.TB, api *kubeapi.Server, name string, change ...func(*control.Config)) *replica {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil)).With("replica", name)
	rc := api.As(api.Token("istio-system", "istiod", "", kubeapi.Audience, time.Hour))
	src, err := kube.Open(kube.Config{REST: rc, Log: log})
	must(err)
	w, err := kube.NewWriter(rc)
	must(err)
	callers, err := kube.NewCallers(rc, mesh.TokenAudience)
	must(err)
	lease, err := kube.NewLease(kube.LeaseConfig{
		REST: rc, Namespace: "istio-system", Name: "ambit-leader", Identity: name, Log: log,
		Duration: 4 * time.Second, Renew: 2 * time.Second, Every: 300 * time.Millisecond,
	})
	must(err)
	c := control.Config{Objects: src, Writer: w, Status: src.Status(), Callers: callers, Leader: lease, Log: log}
	for _, f := range change {
		f(&c)
	}
	for _, to := range []*net.Listener{&c.XDS, &c.Monitor, &c.Ready} {
		*to, err = net.Listen("tcp", "127.0.0.1:0")
		must(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	plane := control.New(c)
	go func() { done <- plane.Run(ctx) }()
	r := &replica{api: api, source: src, lease: lease, xds: c.XDS.Addr().String(), debug: "http://" + c.Monitor.Addr().String() + "/debug/"}
	r.stop = func() {
		if r.stop = func() {}; true {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("replica %s: %v", name, err)
			}
		}
	}
	t.Cleanup(func() { r.stop() })
	return r
}

// startAPI runs an API server that knows the kinds of the mesh, whatever is in them, and what the account istiod may do.
func startAPI(t testing.TB) *kubeapi.Server {
	t.Helper()
	return startAPIWith(t, func(_ testing.TB, api *kubeapi.Server) {
		for _, k := range kinds.All() {
			if strings.HasSuffix(k.Group, ".istio.io") || k.Group == "gateway.networking.k8s.io" {
				api.Define(k.Group, k.Kind, k.Plural, k.Namespaced, k.Versions...)
			}
		}
	})
}

func startAPIWith(t testing.TB, define func(testing.TB, *kubeapi.Server)) *kubeapi.Server {
	t.Helper()
	role, err := os.ReadFile("testdata/role.yaml")
	if err != nil {
		t.Fatal(err)
	}
	api := kubeapi.Start(t)
	define(t, api)
	api.Apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: istio-system}\n---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {name: istiod, namespace: istio-system}\n---\n" + string(role))
	return api
}

// sign asks for a certificate, for the caller itself or on behalf of somebody.
func (r *replica) sign(t testing.TB, token, onBehalf string) ([]*x509.Certificate, error) {
	t.Helper()
	m := r.api.Get("v1", "ConfigMap", "istio-system", mesh.RootConfigMap)
	if m == nil {
		t.Fatal("no roots")
	}
	data, _ := m.Object["data"].(map[string]any)
	roots, _ := data[mesh.RootConfigKey].(string)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(roots))
	conn, err := grpc.NewClient(r.xds, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: pool, ServerName: mesh.IstiodHost, MinVersion: tls.VersionTLS13})))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	req := &capb.IstioCertificateRequest{Csr: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})), ValidityDuration: 3600}
	if onBehalf != "" {
		req.Metadata = &structpb.Struct{Fields: map[string]*structpb.Value{"ImpersonatedIdentity": structpb.NewStringValue(onBehalf)}}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	out := &capb.IstioCertificateResponse{}
	if err := conn.Invoke(ctx, "/istio.v1.auth.IstioCertificateService/CreateCertificate", req, out, grpc.WaitForReady(true)); err != nil {
		return nil, err
	}
	var chain []*x509.Certificate
	for _, text := range out.CertChain {
		block, _ := pem.Decode([]byte(text))
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		chain = append(chain, c)
	}
	return chain, nil
}

func meshPod(namespace, name, account, node, ip string) string {
	return "---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {name: " + account + ", namespace: " + namespace + "}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: " + name + ", namespace: " + namespace +
		"}\nspec: {nodeName: " + node + ", serviceAccountName: " + account + ", containers: [{name: c, image: i}]}\nstatus: {phase: Running, podIP: " + ip + ", podIPs: [{ip: " + ip + "}]}\n"
}

func rootsOf(api *kubeapi.Server, namespace string) string {
	m := api.Get("v1", "ConfigMap", namespace, mesh.RootConfigMap)
	if m == nil {
		return ""
	}
	data, _ := m.Object["data"].(map[string]any)
	text, _ := data[mesh.RootConfigKey].(string)
	return text
}

// A control plane on a real API server: who may have which certificate by the server's own tokens, what it writes, and
// several of them beside each other.
func TestOnAnAPIServer(t *testing.T) {
	api := startAPI(t)
	api.Apply("" +
		meshPod("istio-system", "ztunnel-1", "ztunnel", "n1", "10.0.1.1") + meshPod("istio-system", "ztunnel-2", "ztunnel", "n2", "10.0.2.1") +
		meshPod("default", "web-1", "web", "n1", "10.0.1.2") + meshPod("default", "db-1", "db", "n2", "10.0.2.2"))
	a, b := startReplica(t, api, "a"), startReplica(t, api, "b")
	waitFor(t, "roots in all namespaces", func() bool { return rootsOf(api, "istio-system") != "" && rootsOf(api, "default") != "" })

	t.Run("roots are put right", func(t *testing.T) {
		want := rootsOf(api, "default")
		api.Delete("v1", "ConfigMap", "default", mesh.RootConfigMap)
		waitFor(t, "deleted roots come back", func() bool { return rootsOf(api, "default") == want })
		api.Apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + mesh.RootConfigMap + ", namespace: default}\ndata: {" + mesh.RootConfigKey + ": other, mine: kept}\n")
		waitFor(t, "changed roots are put right", func() bool { return rootsOf(api, "default") == want })
		if m := api.Get("v1", "ConfigMap", "default", mesh.RootConfigMap); m.Object["data"].(map[string]any)["mine"] != "kept" {
			t.Error("what another said in it is gone")
		}
		api.Apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: later}\n")
		waitFor(t, "a new namespace has roots", func() bool { return rootsOf(api, "later") == want })
	})

	const id = "spiffe://cluster.local/ns/default/sa/"
	z1 := api.Token("istio-system", "ztunnel", "ztunnel-1", mesh.TokenAudience, time.Hour)
	web := api.Token("default", "web", "web-1", mesh.TokenAudience, time.Hour)
	for name, r := range map[string]*replica{"one": a, "the other": b} {
		t.Run(name, func(t *testing.T) {
			for _, c := range []struct{ name, token, as, want string }{
				{"CA-01 no token", "", "", ""},
				{"CA-01 garbage", "a.b.c", "", ""},
				{"CA-02 another audience", api.Token("default", "web", "web-1", "vault", time.Hour), "", ""},
				{"CA-02 the API server's audience", api.Token("default", "web", "web-1", "https://kubernetes.default.svc.cluster.local", time.Hour), "", ""},
				{"a workload for itself", web, "", id + "web"},
				{"CA-03 a workload for another", web, id + "db", ""},
				{"CA-04 a ztunnel for a pod of another node", z1, id + "db", ""},
				{"CA-05 a ztunnel for a pod of its node", z1, id + "web", id + "web"},
				{"a ztunnel whose token is bound to no pod", api.Token("istio-system", "ztunnel", "", mesh.TokenAudience, time.Hour), id + "web", ""},
			} {
				t.Run(c.name, func(t *testing.T) {
					chain, err := r.sign(t, c.token, c.as)
					if (err == nil) != (c.want != "") {
						t.Fatalf("error %v, want identity %q", err, c.want)
					}
					if err != nil {
						if strings.Contains(err.Error(), "audience") || !strings.Contains(err.Error(), "refused") {
							t.Errorf("the caller learns why: %v", err)
						}
						return
					}
					if len(chain[0].URIs) != 1 || chain[0].URIs[0].String() != c.want || chain[0].IsCA {
						t.Errorf("certificate for %v", chain[0].URIs)
					}
				})
			}
		})
	}
	t.Run("the pod of a token that is gone", func(t *testing.T) {
		api.Delete("v1", "Pod", "default", "web-1")
		waitFor(t, "its token is of no use", func() bool { _, err := a.sign(t, web, ""); return err != nil })
	})
	t.Run("status", func(t *testing.T) {
		api.Apply("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: default}\nspec: {action: DENY, rules: [{from: [{source: {namespaces: [evil]}}]}]}\n")
		waitFor(t, "the policy's status says something", func() bool {
			return len(conditionsOf(api, "p")) > 0
		})
		if c := conditionsOf(api, "p")["ZtunnelAccepted"]; c != "True" {
			t.Errorf("conditions %v", conditionsOf(api, "p"))
		}
	})
	t.Run("a leader that ends is replaced", func(t *testing.T) {
		waitFor(t, "one leads", func() bool { return a.lease.Leading() != b.lease.Leading() })
		first, second := a, b
		if b.lease.Leading() {
			first, second = b, a
		}
		first.stop()
		waitFor(t, "the other leads", second.lease.Leading)
		api.Delete("v1", "ConfigMap", "default", mesh.RootConfigMap)
		waitFor(t, "and writes", func() bool { return rootsOf(api, "default") != "" })
	})
}

// conditionsOf are the conditions of a policy of default: type to status.
func conditionsOf(api *kubeapi.Server, name string) map[string]string {
	out := map[string]string{}
	p := api.Get("security.istio.io/v1", "AuthorizationPolicy", "default", name)
	if p == nil {
		return out
	}
	status, _ := p.Object["status"].(map[string]any)
	all, _ := status["conditions"].([]any)
	for _, c := range all {
		if c, ok := c.(map[string]any); ok {
			kind, _ := c["type"].(string)
			is, _ := c["status"].(string)
			out[kind] = is
		}
	}
	return out
}
