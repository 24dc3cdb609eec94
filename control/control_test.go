package control_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/ambit-mesh/ambit/api/authorization"
	"github.com/ambit-mesh/ambit/api/discovery"
	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/control"
	"github.com/ambit-mesh/ambit/control/source/files"
	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/identity/certs"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/xds/client"
)

const cluster = `
apiVersion: v1
kind: Namespace
metadata: {name: istio-system}
---
apiVersion: v1
kind: Namespace
metadata: {name: default}
---
apiVersion: v1
kind: Pod
metadata: {name: ztunnel-1, namespace: istio-system, uid: z1}
spec: {nodeName: node-1, serviceAccountName: ztunnel, containers: [{name: a, image: a}]}
status: {phase: Running, podIP: 10.244.1.2, podIPs: [{ip: 10.244.1.2}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: default, uid: w1, labels: {app: web}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {nodeName: node-1, serviceAccountName: web, containers: [{name: a, image: a}]}
status: {phase: Running, podIP: 10.244.1.3, podIPs: [{ip: 10.244.1.3}], conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: far-1, namespace: default, uid: f1}
spec: {nodeName: node-2, serviceAccountName: far, containers: [{name: a, image: a}]}
status: {phase: Running, podIP: 10.244.2.3, podIPs: [{ip: 10.244.2.3}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {clusterIP: 10.96.0.7, clusterIPs: [10.96.0.7], selector: {app: web}, ports: [{port: 80, targetPort: 8080, protocol: TCP}]}
`

// plane is a control plane on a directory, and what a proxy on node-1 needs to talk to it.
type plane struct {
	t       *testing.T
	dir     string
	addr    string
	signer  jose.Signer
	monitor string
}

func start(t *testing.T) *plane {
	t.Helper()
	p := &plane{t: t, dir: t.TempDir()}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	jwk := jose.JSONWebKey{Key: key, KeyID: "k", Algorithm: "ES256"}
	if p.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jwk}, nil); err != nil {
		t.Fatal(err)
	}
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{jwk.Public()}})
	if err != nil {
		t.Fatal(err)
	}
	p.write("../sa.jwks", string(set))
	p.write("cluster.yaml", cluster)

	log := slog.New(slog.DiscardHandler)
	src, err := files.Open(files.Config{Dir: filepath.Join(p.dir, "objects"), Kept: filepath.Join(p.dir, "kept"), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	xds := listen()
	p.addr = xds.Addr().String()
	monitor := listen()
	p.monitor = monitor.Addr().String()
	c := control.New(control.Config{
		Objects: src, Writer: files.NewWriter(filepath.Join(p.dir, "objects")), Status: files.NewWriter(filepath.Join(p.dir, "status")),
		Callers: files.NewCallers(filepath.Join(p.dir, "sa.jwks"), mesh.TokenAudience),
		XDS:     xds, Monitor: monitor, Ready: listen(), Log: log,
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return p
}

func (p *plane) write(name, text string) {
	p.t.Helper()
	path := filepath.Join(p.dir, "objects", name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// roots waits for the file that pods mount.
func (p *plane) roots() string {
	p.t.Helper()
	for range 200 {
		b, err := os.ReadFile(filepath.Join(p.dir, "objects/default/configmaps/istio-ca-root-cert.yaml"))
		if err == nil {
			var pem []string
			for line := range strings.Lines(string(b)) {
				if line = strings.TrimSpace(line); strings.HasPrefix(line, "root-cert.pem") || len(pem) > 0 {
					pem = append(pem, line)
				}
				if strings.Contains(line, "END CERTIFICATE") {
					break
				}
			}
			path := filepath.Join(p.dir, "root-cert.pem")
			if err := os.WriteFile(path, []byte(strings.Join(pem[1:], "\n")+"\n"), 0o600); err != nil {
				p.t.Fatal(err)
			}
			return path
		}
		time.Sleep(20 * time.Millisecond)
	}
	p.t.Fatal("no root ConfigMap was written")
	return ""
}

func (p *plane) token(ns, account, pod, uid, node string) func() (string, error) {
	return func() (string, error) {
		return jwt.Signed(p.signer).Claims(jwt.Claims{
			Subject: "system:serviceaccount:" + ns + ":" + account, Audience: jwt.Audience{mesh.TokenAudience},
			Expiry: jwt.NewNumericDate(time.Now().Add(time.Hour)),
		}).Claims(map[string]any{"kubernetes.io": map[string]any{
			"namespace": ns, "serviceaccount": map[string]string{"name": account},
			"pod": map[string]string{"name": pod, "uid": uid}, "node": map[string]string{"name": node},
		}}).Serialize()
	}
}

func (p *plane) authority(token func() (string, error), impersonate bool) *certs.CA {
	return &certs.CA{Address: p.addr, TLS: client.TLSFromFile(p.roots(), mesh.IstiodHost), Token: token, ClusterID: "Kubernetes", Impersonate: impersonate}
}

func id(ns, account string) identity.ID {
	return identity.ID{TrustDomain: "cluster.local", Namespace: ns, ServiceAccount: account}
}

// CA-03, CA-04, CA-05 through the door: a node proxy gets the identities of its node, and nobody else any but its own.
func TestCertificatesThroughTheDoor(t *testing.T) {
	p := start(t)
	ztunnel := p.token("istio-system", "ztunnel", "ztunnel-1", "z1", "node-1")
	web := p.token("default", "web", "web-1", "w1", "node-1")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if got, err := p.authority(ztunnel, true).Issue(ctx, id("default", "web")); err != nil || got.SVID.ID != id("default", "web") {
		t.Errorf("CA-05: a pod of the node: %v, %v", got.SVID, err)
	}
	if _, err := p.authority(web, false).Issue(ctx, id("default", "web")); err != nil {
		t.Errorf("a pod's own identity: %v", err)
	}
	for name, try := range map[string]struct {
		token func() (string, error)
		id    identity.ID
	}{
		"CA-04: a pod of another node":      {ztunnel, id("default", "far")},
		"CA-03: a workload acts for others": {web, id("default", "far")},
		"a token of a pod that is gone":     {p.token("istio-system", "ztunnel", "ztunnel-1", "old", "node-1"), id("default", "web")},
		"garbage":                           {func() (string, error) { return "x.y.z", nil }, id("default", "web")},
	} {
		if got, err := p.authority(try.token, true).Issue(ctx, try.id); err == nil {
			t.Errorf("%s: issued %s", name, got.SVID.ID)
		}
	}
}

// A node proxy is told of workloads, services and policies, and of what changes; a workload's token is told of nothing.
func TestDiscoveryThroughTheDoor(t *testing.T) {
	p := start(t)
	workloads, services, policies := make(chan *workload.Workload, 100), make(chan *workload.Service, 100), make(chan *authorization.Authorization, 100)
	subscribe := func(token func() (string, error), node string, told func()) *client.Client {
		c := client.New(client.Config{
			Address: p.addr, TLS: client.TLSFromFile(p.roots(), mesh.IstiodHost), Token: token, ClusterID: "Kubernetes",
			Node: &discovery.Node{Id: node},
			Handlers: []client.Handler{
				client.Handle(mesh.TypeAddress, false, func(up []client.Item[*workload.Address], _ []string) error {
					for _, i := range up {
						told()
						if w := i.Body.GetWorkload(); w != nil {
							workloads <- w
						} else {
							services <- i.Body.GetService()
						}
					}
					return nil
				}),
				client.Handle(mesh.TypeAuthorization, false, func(up []client.Item[*authorization.Authorization], _ []string) error {
					for _, i := range up {
						told()
						policies <- i.Body
					}
					return nil
				}),
			},
			Log: slog.New(slog.DiscardHandler),
		})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		t.Cleanup(func() { cancel(); <-done })
		return c
	}
	c := subscribe(p.token("istio-system", "ztunnel", "ztunnel-1", "z1", "node-1"), "ztunnel~10.244.1.2~ztunnel-1.istio-system~istio-system.svc.cluster.local", func() {})
	<-c.Synced(mesh.TypeAddress)
	<-c.Synced(mesh.TypeAuthorization)
	web := await(t, workloads, func(w *workload.Workload) bool { return w.Name == "web-1" })
	if web.TunnelProtocol != workload.TunnelProtocol_HBONE || web.Uid != "Kubernetes//Pod/default/web-1" || len(web.Services) != 1 {
		t.Errorf("workload %v", web)
	}
	svc := await(t, services, func(s *workload.Service) bool { return s.Name == "web" })
	if svc.Hostname != "web.default.svc.cluster.local" || len(svc.Addresses) != 1 {
		t.Errorf("service %v", svc)
	}
	await(t, policies, func(a *authorization.Authorization) bool { return a.Name == "istio_converted_static_strict" })

	p.write("policy.yaml", "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: no, namespace: default}\nspec: {selector: {matchLabels: {app: web}}, action: DENY, rules: [{from: [{source: {namespaces: [bad]}}]}]}\n")
	await(t, policies, func(a *authorization.Authorization) bool { return a.Name == "no" })
	web = await(t, workloads, func(w *workload.Workload) bool { return w.Name == "web-1" })
	if len(web.AuthorizationPolicies) != 1 || web.AuthorizationPolicies[0] != "default/no" {
		t.Errorf("policies of the workload: %v", web.AuthorizationPolicies)
	}

	// XD-02: another pod is told of nothing by its own name, and refused under that of a ztunnel.
	told := 0
	other := subscribe(p.token("default", "web", "web-1", "w1", "node-1"), "router~10.244.1.3~web-1.default~default.svc.cluster.local", func() { told++ })
	<-other.Synced(mesh.TypeAddress)
	<-other.Synced(mesh.TypeAuthorization)
	if told != 0 {
		t.Errorf("a workload was told of %d resources", told)
	}
}

// The status of a policy is written, and goes with it.
func TestStatusThroughTheDoor(t *testing.T) {
	p := start(t)
	path := filepath.Join(p.dir, "status/default/authorizationpolicies.security.istio.io/methods.yaml")
	p.write("policy.yaml", "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: methods, namespace: default, generation: 3}\nspec: {rules: [{to: [{operation: {methods: [GET]}}]}]}\n")
	var found []kinds.Located
	eventually(t, func() bool {
		data, err := os.ReadFile(path)
		if err != nil {
			return false
		}
		if found, err = kinds.Decode(path, data); err != nil {
			t.Fatal(err)
		}
		return len(found) == 1
	})
	st := &found[0].Object.(*securityv1.AuthorizationPolicy).Status
	if len(st.Conditions) != 2 || st.Conditions[1].Reason != "Pending" || st.Conditions[0].Type != "ZtunnelAccepted" || st.Conditions[0].Reason != "UnsupportedValue" || st.ObservedGeneration != 3 {
		t.Errorf("status %v", st.Conditions)
	}
	if err := os.Remove(filepath.Join(p.dir, "objects/policy.yaml")); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { _, err := os.Stat(path); return os.IsNotExist(err) })
}

// The roots come back to a namespace that lost them.
func TestRootsComeBack(t *testing.T) {
	p := start(t)
	path := filepath.Join(p.dir, "objects/default/configmaps/istio-ca-root-cert.yaml")
	eventually(t, func() bool { _, err := os.Stat(path); return err == nil })
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p.write("default/configmaps/istio-ca-root-cert.yaml", strings.Replace(string(good), "BEGIN", "begin", 1))
	eventually(t, func() bool { now, err := os.ReadFile(path); return err == nil && string(now) == string(good) })
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { _, err := os.Stat(path); return err == nil })
}

// A CA that is there but cannot be read is not replaced: another one would split the mesh.
func TestABrokenCAIsNotReplaced(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "istio-system/secrets/istio-ca-secret.yaml")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("kind: [broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	src, err := files.Open(files.Config{Dir: dir, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	c := control.Config{Objects: src, Writer: files.NewWriter(dir), Status: files.NewWriter(t.TempDir()), Callers: files.NewCallers("none", "x"), Log: log}
	for _, l := range []*net.Listener{&c.XDS, &c.Monitor, &c.Ready} {
		if *l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	if err := control.New(c).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "keep the certificate authority") {
		t.Errorf("Run: %v", err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "kind: [broken" {
		t.Errorf("the file is now %q, %v", data, err)
	}
}

// eventually polls the file system, which tells the test of nothing.
func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("what was awaited never came")
		}
	}
}

func await[T any](t *testing.T, from <-chan T, ok func(T) bool) T {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		select {
		case v := <-from:
			if ok(v) {
				return v
			}
		case <-deadline:
			t.Fatal("what was awaited never came")
		}
	}
}
