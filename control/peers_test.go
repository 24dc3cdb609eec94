package control_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/api/authorization"
	"github.com/ambit-mesh/ambit/api/discovery"
	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/control"
	"github.com/ambit-mesh/ambit/control/source/kube"
	"github.com/ambit-mesh/ambit/internal/testkit/kubeapi"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/xds/client"
)

// nodeProxy is a node proxy that takes in what it is told, or while it is held does not answer.
type nodeProxy struct {
	held atomic.Bool
	stop func()
}

func (r *replica) nodeProxy(t testing.TB, pod string) *nodeProxy {
	t.Helper()
	token := r.api.Token("istio-system", "ztunnel", pod, mesh.TokenAudience, time.Hour)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(rootsOf(r.api, "istio-system")))
	ctx, cancel := context.WithCancel(context.Background())
	p := &nodeProxy{}
	wait := func() {
		for p.held.Load() && ctx.Err() == nil {
			time.Sleep(20 * time.Millisecond)
		}
	}
	c := client.New(client.Config{
		Address: r.xds, Token: func() (string, error) { return token, nil }, Log: slog.New(slog.DiscardHandler),
		TLS: func() (*tls.Config, error) {
			return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool, ServerName: mesh.IstiodHost}, nil
		},
		Node: &discovery.Node{Id: "ztunnel~10.0.1.1~" + pod + ".istio-system~istio-system.svc.cluster.local"},
		Handlers: []client.Handler{
			client.Handle(mesh.TypeAddress, false, func([]client.Item[*workload.Address], []string) error { wait(); return nil }),
			client.Handle(mesh.TypeAuthorization, false, func([]client.Item[*authorization.Authorization], []string) error { wait(); return nil }),
		},
	})
	done := make(chan struct{})
	go func() { defer close(done); _ = c.Run(ctx) }()
	p.stop = func() { cancel(); <-done }
	t.Cleanup(p.stop)
	return p
}

// inForceOf is what a policy of default says.
func inForceOf(api *kubeapi.Server, name string) (is, message string) {
	p := api.Get("security.istio.io/v1", "AuthorizationPolicy", "default", name)
	status, _ := p.Object["status"].(map[string]any)
	all, _ := status["conditions"].([]any)
	for _, c := range all {
		if c, ok := c.(map[string]any); ok && c["type"] == "ambit.io/InForce" {
			is, _ = c["status"].(string)
			message, _ = c["message"].(string)
		}
	}
	return is, message
}

// A policy is in force when all proxies of the mesh have it, to whichever of several control planes they are connected,
// and whoever of these leads.
func TestInForceIsOfTheWholeMesh(t *testing.T) {
	api := startAPI(t)
	api.Apply(meshPod("istio-system", "ztunnel-1", "ztunnel", "n1", "10.0.1.1") + meshPod("istio-system", "ztunnel-2", "ztunnel", "n2", "10.0.2.1"))
	with := func(name string) func(*control.Config) {
		return func(c *control.Config) {
			rc := api.As(api.Token("istio-system", "istiod", "", kubeapi.Audience, time.Hour))
			var err error
			if c.Peers, err = kube.NewPeers(kube.PeersConfig{REST: rc, Namespace: "istio-system", Name: name}); err != nil {
				t.Fatal(err)
			}
		}
	}
	a := startReplica(t, api, "a", with("a"))
	waitFor(t, "a leads", a.lease.Leading)
	b := startReplica(t, api, "b", with("b"))
	waitFor(t, "roots", func() bool { return rootsOf(api, "istio-system") != "" })
	whole := t // proxies live on through its parts
	a.nodeProxy(whole, "ztunnel-1")
	second := b.nodeProxy(whole, "ztunnel-2")
	says := func(name, is string, parts ...string) {
		t.Helper()
		var got, message string
		for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
			got, message = inForceOf(api, name)
			ok := got == is
			for _, part := range parts {
				ok = ok && strings.Contains(message, part)
			}
			if ok {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%s: %s %q, want %s %q", name, got, message, is, parts)
			}
		}
	}
	const policy = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: NAME, namespace: default}\nspec: {action: DENY, rules: [{from: [{source: {namespaces: [FROM]}}]}]}\n"
	write := func(name, from string) { api.Apply(strings.NewReplacer("NAME", name, "FROM", from).Replace(policy)) }
	write("p", "evil")
	says("p", "True", "in force on all 2 node proxies")

	t.Run("one that does not answer another control plane", func(t *testing.T) {
		second.held.Store(true)
		write("p", "worse")
		says("p", "False", "in force on 1 of 2", "ztunnel-2.istio-system (has not answered yet)")
		second.held.Store(false)
		says("p", "True")
	})
	t.Run("one that leaves another control plane", func(t *testing.T) {
		second.stop()
		says("p", "False", "in force on 1 of 2", "ztunnel-2.istio-system (not connected)")
		second = b.nodeProxy(whole, "ztunnel-2")
		says("p", "True")
	})
	t.Run("one that comes over", func(t *testing.T) {
		second.stop()
		second = a.nodeProxy(whole, "ztunnel-2")
		write("q", "evil")
		says("q", "True", "all 2")
		second.stop()
		second = b.nodeProxy(whole, "ztunnel-2")
		write("r", "evil")
		says("r", "True", "all 2")
	})
	t.Run("the other comes to lead, and denies nothing", func(t *testing.T) {
		before := conditionSince(api, "p")
		a.stop()
		waitFor(t, "b leads", b.lease.Leading)
		third := b.nodeProxy(t, "ztunnel-1")
		defer third.stop()
		write("s", "evil")
		says("s", "True", "all 2")
		if after := conditionSince(api, "p"); after != before {
			t.Errorf("since %s, before that since %s: it was denied in between", after, before)
		}
	})
}

// conditionSince is since when a policy of default says of its being in force what it says.
func conditionSince(api *kubeapi.Server, name string) string {
	p := api.Get("security.istio.io/v1", "AuthorizationPolicy", "default", name)
	status, _ := p.Object["status"].(map[string]any)
	all, _ := status["conditions"].([]any)
	for _, c := range all {
		if c, ok := c.(map[string]any); ok && c["type"] == "ambit.io/InForce" {
			s, _ := c["lastTransitionTime"].(string)
			return s
		}
	}
	return ""
}
