package install

import (
	"testing"
	"time"

	authn "k8s.io/api/authentication/v1"
	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/ambit-mesh/ambit/internal/testkit/kubeapi"
)

// CN-01: what the node agent leaves on a node for its plugin may read a pod and a namespace, and nothing else; and the agent gets it by
// its own rights, which make it nobody else.
func TestRightsOfTheNodesPlugin(t *testing.T) {
	w := newWorld(t)
	w.install("profile=ambient", bare)
	w.api.Apply(`{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: default}, spec: {containers: [{name: c, image: i}]}}`)
	as := func(token string) kubernetes.Interface {
		t.Helper()
		c, err := kubernetes.NewForConfig(w.api.As(token))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	agent := as(w.api.Token("istio-system", "istio-cni", "", kubeapi.Audience, time.Hour))
	request := func(account string) (*authn.TokenRequest, error) {
		seconds := int64(24 * 60 * 60)
		return agent.CoreV1().ServiceAccounts("istio-system").CreateToken(t.Context(), account, &authn.TokenRequest{Spec: authn.TokenRequestSpec{ExpirationSeconds: &seconds}}, metav1.CreateOptions{})
	}
	for _, other := range []string{"istiod", "ztunnel", "istio-cni"} {
		if _, err := request(other); !apierrors.IsForbidden(err) {
			t.Errorf("the agent asks for a token of %s: %v", other, err)
		}
	}
	got, err := request("istio-cni-plugin")
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(got.Status.ExpirationTimestamp.Time); left < 23*time.Hour {
		t.Errorf("it ends after %s", left)
	}
	plugin := as(got.Status.Token).CoreV1()
	ctx := t.Context()
	for what, f := range map[string]func() error{
		"get a pod":       func() error { _, err := plugin.Pods("default").Get(ctx, "web", metav1.GetOptions{}); return err },
		"get a namespace": func() error { _, err := plugin.Namespaces().Get(ctx, "default", metav1.GetOptions{}); return err },
	} {
		if err := f(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, f := range map[string]func() error{
		"list pods":       func() error { _, err := plugin.Pods("").List(ctx, metav1.ListOptions{}); return err },
		"list namespaces": func() error { _, err := plugin.Namespaces().List(ctx, metav1.ListOptions{}); return err },
		"watch pods":      func() error { _, err := plugin.Pods("default").Watch(ctx, metav1.ListOptions{}); return err },
		"patch a pod": func() error {
			_, err := plugin.Pods("default").Patch(ctx, "web", "application/merge-patch+json", []byte(`{"metadata":{"labels":{"a":"b"}}}`), metav1.PatchOptions{})
			return err
		},
		"patch a pod's status": func() error {
			_, err := plugin.Pods("default").Patch(ctx, "web", "application/merge-patch+json", []byte(`{}`), metav1.PatchOptions{}, "status")
			return err
		},
		"delete a pod": func() error { return plugin.Pods("default").Delete(ctx, "web", metav1.DeleteOptions{}) },
		"get a secret": func() error {
			_, err := plugin.Secrets("istio-system").Get(ctx, "istio-ca-secret", metav1.GetOptions{})
			return err
		},
		"get a node": func() error { _, err := plugin.Nodes().Get(ctx, "n1", metav1.GetOptions{}); return err },
		"get a map":  func() error { _, err := plugin.ConfigMaps("default").Get(ctx, "a", metav1.GetOptions{}); return err },
		"make an event": func() error {
			_, err := plugin.Events("default").Create(ctx, &core.Event{ObjectMeta: metav1.ObjectMeta{Name: "e"}}, metav1.CreateOptions{})
			return err
		},
		"make a token": func() error {
			_, err := plugin.ServiceAccounts("istio-system").CreateToken(ctx, "istio-cni-plugin", &authn.TokenRequest{}, metav1.CreateOptions{})
			return err
		},
	} {
		if err := f(); !apierrors.IsForbidden(err) {
			t.Errorf("the plugin's token may %s: %v", what, err)
		}
	}

	// An uninstallation takes all of it away, and ends the tokens that are out.
	w.uninstall(false)
	for _, c := range []struct {
		k               kind
		namespace, name string
	}{
		{installable()[3], "istio-system", "istio-cni-plugin"},
		{installable()[4], "", "istio-cni-plugin"},
		{installable()[5], "", "istio-cni-plugin"},
		{installable()[6], "istio-system", "istio-cni"},
	} {
		if w.has(c.k, c.namespace, c.name) {
			t.Errorf("%s %s is left over", c.k.name, c.name)
		}
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) { // the API server remembers tokens for some seconds
		_, err := plugin.Pods("default").Get(ctx, "web", metav1.GetOptions{})
		if apierrors.IsUnauthorized(err) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the token after the uninstallation: %v", err)
		}
	}
}
