package control_test

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/ambit-mesh/ambit/control"
	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/control/source/kube"
	"github.com/ambit-mesh/ambit/internal/testkit/kubeapi"
)

const validator = "istio-validator-istio-system"

// anotherRoot is of nobody that we know, as PEM in base64.
const anotherRoot = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1JSUJlakNDQVNHZ0F3SUJBZ0lVV0JKVFh1UFltRklaYnk5NVh4S3A0QWNyS0tBd0NnWUlLb1pJemowRUF3SXcKRWpFUU1BNEdBMVVFQXd3SFlXNXZkR2hsY2pBZ0Z3MHlOakV4TWpVeE5UQTBNVE5hR0E4eU1USTJNVEV3TVRFMQpNRFF4TTFvd0VqRVFNQTRHQTFVRUF3d0hZVzV2ZEdobGNqQlpNQk1HQnlxR1NNNDlBZ0VHQ0NxR1NNNDlBd0VICkEwSUFCRGtGbU5VN2xTQTM4U3ljbVRyMUZNUkpEbENoNUxKYk5xU1hsWWY1Y0NaT3RqYStOV0ExNTZYNHJCbUQKNkJvcDhOZXVmRCt0bmVJenNoSnpZTW5PMkxHalV6QlJNQjBHQTFVZERnUVdCQlFPeHpvUUMwdmd1a1hhZWo2agovTlg5eXR6RFVUQWZCZ05WSFNNRUdEQVdnQlFPeHpvUUMwdmd1a1hhZWo2ai9OWDl5dHpEVVRBUEJnTlZIUk1CCkFmOEVCVEFEQVFIL01Bb0dDQ3FHU000OUJBTUNBMGNBTUVRQ0lHU05MbEhWdGFYNGlkeHJzcGhIMGdhQmVreWIKSkRoekZJQTQ0RzJ4NnhIOUFpQkd6SWV6U0g1TWRxMk85U08zUkNuM3B6VlZ2WWMxYU1Hcm9PMW9pOTZ6dHc9PQotLS0tLUVORCBDRVJUSUZJQ0FURS0tLS0tCg=="

// front is the Service of the control plane: connections go to one of the replicas that are there.
type front struct {
	net.Listener
	mu    sync.Mutex // guards below
	to    []string
	conns []net.Conn
}

// startFront listens, and makes the Service and the webhook's configuration that lead there.
func startFront(t testing.TB, api *kubeapi.Server) *front {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &front{Listener: l}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go f.serve(c)
		}
	}()
	api.Apply("apiVersion: v1\nkind: Service\nmetadata: {name: istiod, namespace: istio-system}\nspec: {type: ExternalName, externalName: localhost}\n")
	api.Apply(f.configuration(t))
	return f
}

// configuration is the chart's, with the port that the test has in place of 443.
func (f *front) configuration(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile("testdata/webhook.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(text), "port: 443", "port: "+strconv.Itoa(f.Addr().(*net.TCPAddr).Port))
}

// lead has connections go to these from now on; those that are open are closed.
func (f *front) lead(to ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.to = to
	for _, c := range f.conns {
		c.Close()
	}
	f.conns = nil
}

func (f *front) serve(c net.Conn) {
	defer c.Close()
	f.mu.Lock()
	to := f.to
	f.conns = append(f.conns, c)
	f.mu.Unlock()
	for _, addr := range to {
		b, err := net.Dial("tcp", addr)
		if err != nil {
			continue
		}
		defer b.Close()
		go func() { _, _ = io.Copy(b, c); b.Close() }()
		_, _ = io.Copy(c, b)
		return
	}
}

// validating gives a replica a webhook, and where it is.
func validating(t testing.TB, api *kubeapi.Server, addr *string) func(*control.Config) {
	return func(c *control.Config) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		*addr = l.Addr().String()
		c.Validation = l
		rc := api.As(api.Token("istio-system", "istiod", "", kubeapi.Audience, time.Hour))
		if c.Webhook, err = kube.NewWebhook(kube.WebhookConfig{REST: rc, Name: validator, Namespace: "istio-system"}); err != nil {
			t.Fatal(err)
		}
	}
}

// policies are the failure policies, and bundles the certificates, of the configuration.
func hooksOf(api *kubeapi.Server) (policies, bundles []string) {
	o := api.Get("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", "", validator)
	if o == nil {
		return nil, nil
	}
	all, _, _ := unstructured.NestedSlice(o.Object, "webhooks")
	for _, h := range all {
		h, _ := h.(map[string]any)
		p, _, _ := unstructured.NestedString(h, "failurePolicy")
		b, _, _ := unstructured.NestedString(h, "clientConfig", "caBundle")
		policies, bundles = append(policies, p), append(bundles, b)
	}
	return policies, bundles
}

func refusesAll(api *kubeapi.Server) bool {
	policies, _ := hooksOf(api)
	return strings.Join(policies, " ") == "Fail Fail"
}

// kubectl runs the real one, as an administrator.
func kubectl(t testing.TB, api *kubeapi.Server, stdin string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c := exec.CommandContext(ctx, filepath.Join(kubeapi.Bin(), "kubectl"), append([]string{"--kubeconfig", api.Kubeconfig}, args...)...)
	c.Stdin = strings.NewReader(stdin)
	out, err := c.CombinedOutput()
	return string(out), err
}

// bad are objects that the definitions of their kinds take and the mesh does not.
func bad() map[string]string {
	return map[string]string{
		"AuthorizationPolicy": "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: bad, namespace: default}\nspec: {rules: [{from: [{source: {ipBlocks: [10.0.0.0/99]}}], when: [{key: source.nonsense, values: [x]}]}]}\n",
		"VirtualService":      "apiVersion: networking.istio.io/v1beta1\nkind: VirtualService\nmetadata: {name: bad, namespace: default}\nspec: {hosts: [web], http: [{match: [{uri: {regex: '['}}], route: [{destination: {host: web}}]}]}\n",
		"Gateway":             "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: bad, namespace: default}\nspec: {servers: [{port: {number: 80, name: http, protocol: HTPT}, hosts: ['*']}]}\n",
		"DestinationRule":     "apiVersion: networking.istio.io/v1alpha3\nkind: DestinationRule\nmetadata: {name: bad, namespace: default, labels: {istio.io/rev: default}}\nspec: {host: 'no host'}\n",
		"ServiceEntry":        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: bad, namespace: default}\nspec: {hosts: ['no host'], resolution: NONE, ports: [{number: 80, name: http, protocol: HTTP}]}\n",
		"WorkloadEntry":       "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: bad, namespace: default}\nspec: {address: 'no address'}\n",
	}
}

// saysOf is what `ambit validate` says of an object, without where in the file.
func saysOf(t testing.TB, text string) []string {
	t.Helper()
	all, err := kinds.Decode("", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	ps := all[0].Problems()
	if len(ps) == 0 {
		t.Fatalf("nothing is wrong with\n%s", text)
	}
	var out []string
	for _, p := range ps {
		p.Line = 0
		out = append(out, p.Error())
	}
	return out
}

// Objects of the mesh that are not valid are refused by a real API server with the words of `ambit validate`, whatever
// becomes of the control plane.
func TestXD11Webhook(t *testing.T) {
	api := startAPIWith(t, realKinds)
	door := startFront(t, api)
	if policies, _ := hooksOf(api); strings.Join(policies, " ") != "Ignore Ignore" {
		t.Fatalf("an installation begins with %v", policies)
	}
	// What was written before there was anybody to ask stays there, not valid.
	api.Apply(strings.ReplaceAll(bad()["VirtualService"], "bad", "old"))
	var at [2]string
	quick := func(c *control.Config) { c.RootDistribute = 3 * time.Second }
	first := startReplica(t, api, "a", validating(t, api, &at[0]), quick)
	second := startReplica(t, api, "b", validating(t, api, &at[1]), quick)
	waitFor(t, "the server is told what to trust", func() bool { _, b := hooksOf(api); return b[0] != "" })
	if refusesAll(api) {
		t.Error("it refuses what it cannot ask about, though nobody was seen to answer")
	}
	door.lead(at[0], at[1])
	waitFor(t, "the webhook is in force", func() bool { return refusesAll(api) })

	refused := func(t *testing.T, text string) string {
		t.Helper()
		out, err := kubectl(t, api, text, "apply", "-f", "-")
		if err == nil {
			t.Errorf("taken: %s\n%s", out, text)
		}
		return out
	}
	for kind, text := range bad() {
		t.Run("a bad "+kind, func(t *testing.T) {
			out := refused(t, text)
			for _, want := range append(saysOf(t, text), "denied the request: "+kind+" default/bad is not valid") {
				if !strings.Contains(out, want) {
					t.Errorf("kubectl says\n%s\nwithout %q", out, want)
				}
			}
		})
	}
	t.Run("what it says of a valid one that does not do all it says", func(t *testing.T) {
		out, err := kubectl(t, api, "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: l7, namespace: default}\nspec: {rules: [{to: [{operation: {methods: [GET]}}]}]}\n", "apply", "-f", "-")
		if err != nil || !strings.Contains(out, "Warning: ") || !strings.Contains(out, "spec.rules[0].to[0].operation.methods") {
			t.Errorf("%v: %s", err, out)
		}
	})
	t.Run("one that was never valid can be labelled, and deleted", func(t *testing.T) {
		if out, err := kubectl(t, api, "", "label", "virtualservices.networking.istio.io", "old", "-n", "default", "a=b"); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		if out, err := kubectl(t, api, "", "patch", "virtualservices.networking.istio.io", "old", "-n", "default", "--type=merge", "-p", `{"spec":{"hosts":["other"]}}`); err == nil {
			t.Errorf("changed, and still not valid: %s", out)
		}
	})
	t.Run("what the server trusts is put right", func(t *testing.T) {
		_, want := hooksOf(api)
		o := api.Get("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", "", validator)
		if out, err := kubectl(t, api, "", "patch", "validatingwebhookconfiguration", o.GetName(), "--type=json", "-p",
			`[{"op":"replace","path":"/webhooks/1/clientConfig/caBundle","value":"`+anotherRoot+`"}]`); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		waitFor(t, "the bundle is as it was", func() bool { _, b := hooksOf(api); return b[1] == want[1] })
	})
	t.Run("an installation that begins anew is taken over", func(t *testing.T) {
		api.Apply(door.configuration(t))
		waitFor(t, "it refuses again", func() bool { return refusesAll(api) })
	})
	t.Run("the API server begins again", func(t *testing.T) {
		api.Stop()
		api.Restart()
		waitFor(t, "and asks", func() bool {
			out, err := kubectl(t, api, bad()["Gateway"], "apply", "-f", "-")
			return err != nil && strings.Contains(out, "HTPT")
		})
	})
	t.Run("CA-18 another root takes over", func(t *testing.T) {
		secret, err := kinds.Encode(plugged(t, "next"))
		if err != nil {
			t.Fatal(err)
		}
		api.Apply(string(secret))
		both := func() bool { return strings.Count(rootsOf(api, "istio-system"), "BEGIN CERTIFICATE") == 2 }
		waitFor(t, "both roots are trusted by the server too", func() bool {
			_, b := hooksOf(api)
			return both() && b[0] == base64.StdEncoding.EncodeToString([]byte(rootsOf(api, "istio-system"))) && b[0] == b[1]
		})
		waitFor(t, "the webhook's certificate is under the new root", func() bool {
			if out := refused(t, bad()["Gateway"]); !strings.Contains(out, "HTPT") { // never is there a moment without an answer
				t.Fatalf("kubectl says\n%s", out)
			}
			c, err := tls.Dial("tcp", at[0], &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			chain := c.ConnectionState().PeerCertificates
			return strings.HasPrefix(chain[0].Issuer.CommonName, "next ")
		})
		door.lead(at[0], at[1]) // no connection of before
		if out := refused(t, bad()["Gateway"]); !strings.Contains(out, "HTPT") {
			t.Errorf("kubectl says\n%s", out)
		}
	})
	t.Run("another leads", func(t *testing.T) {
		waitFor(t, "one leads", func() bool { return first.lease.Leading() != second.lease.Leading() })
		if second.lease.Leading() {
			first, second = second, first
			at[0], at[1] = at[1], at[0]
		}
		ended := make(chan struct{})
		go func() { defer close(ended); first.stop() }()
		waitFor(t, "it leads no more", func() bool { return !first.lease.Leading() })
		for range 2 { // the Service leads to it for a moment yet, then no more
			if out := refused(t, bad()["AuthorizationPolicy"]); !strings.Contains(out, "source.nonsense") {
				t.Errorf("kubectl says\n%s", out)
			}
			door.lead(at[1])
		}
		<-ended
		api.Apply(door.configuration(t))
		waitFor(t, "it looks after the configuration", func() bool { return refusesAll(api) })
	})
	t.Run("no control plane is there", func(t *testing.T) {
		second.stop()
		door.lead()
		good := "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: good, namespace: default}\nspec: {mtls: {mode: STRICT}}\n"
		if out := refused(t, good); !strings.Contains(out, "failed calling webhook") {
			t.Errorf("kubectl says\n%s", out)
		}
		for what, args := range map[string][]string{
			"a pod of the system":        {"run", "p", "-n", "istio-system", "--image=i"},
			"a pod":                      {"run", "p", "--image=i"},
			"a route of Gateway API":     {"apply", "-f", "-"},
			"a deletion":                 {"delete", "virtualservices.networking.istio.io", "old", "-n", "default"},
			"a label":                    {"label", "authorizationpolicies.security.istio.io", "l7", "-n", "default", "a=b"},
			"the webhook's own":          {"label", "validatingwebhookconfiguration", validator, "a=b"},
			"a definition":               {"label", "customresourcedefinition", "gateways.networking.istio.io", "a=b"},
			"a deployment of the system": {"create", "deployment", "d", "-n", "istio-system", "--image=i"},
		} {
			t.Run(what+" is not held up", func(t *testing.T) {
				if out, err := kubectl(t, api, "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r, namespace: default}\nspec: {parentRefs: [{name: g}]}\n", args...); err != nil {
					t.Errorf("%v: %s", err, out)
				}
			})
		}
		t.Run("a person may open the door", func(t *testing.T) {
			if out, err := kubectl(t, api, "", "delete", "validatingwebhookconfiguration", validator); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			waitFor(t, "a good object is taken", func() bool { _, err := kubectl(t, api, good, "apply", "-f", "-"); return err == nil })
		})
	})
}
