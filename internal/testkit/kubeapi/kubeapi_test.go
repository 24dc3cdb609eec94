package kubeapi_test

import (
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/testkit/kubeapi"
)

// What is written outlives the API server, and tokens are bound to pods.
func TestServer(t *testing.T) {
	s := kubeapi.Start(t)
	s.Apply("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: web, namespace: default}\n---\n" +
		"apiVersion: v1\nkind: Pod\nmetadata: {name: web-1, namespace: default}\nspec: {serviceAccountName: web, containers: [{name: c, image: i}]}\nstatus: {phase: Running, podIP: 10.0.0.7}\n")
	s.Stop()
	s.Restart()
	p := s.Get("v1", "Pod", "default", "web-1")
	if p == nil {
		t.Fatal("the pod is gone")
	}
	if status, _ := p.Object["status"].(map[string]any); status["podIP"] != "10.0.0.7" {
		t.Errorf("status %v", p.Object["status"])
	}
	if token := s.Token("default", "web", "web-1", "istio-ca", time.Hour); strings.Count(token, ".") != 2 {
		t.Errorf("token %q", token)
	}
	s.Define("security.istio.io", "AuthorizationPolicy", "authorizationpolicies", true, "v1", "v1beta1")
	s.Apply("apiVersion: security.istio.io/v1beta1\nkind: AuthorizationPolicy\nmetadata: {name: a, namespace: default}\nspec: {odd: 1}\n")
	s.Delete("v1", "Pod", "default", "web-1")
	if s.Get("v1", "Pod", "default", "web-1") != nil {
		t.Error("the pod is still there")
	}
}
