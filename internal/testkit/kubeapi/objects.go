package kubeapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
)

// Objects are those of a YAML text.
func Objects(text string) (all []*unstructured.Unstructured, err error) {
	d := yaml.NewYAMLOrJSONDecoder(bytes.NewReader([]byte(text)), 4096)
	for {
		o := &unstructured.Unstructured{}
		switch err := d.Decode(&o.Object); {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, err
		case len(o.Object) > 0:
			all = append(all, o)
		}
	}
}

// Apply writes the objects of a YAML text, their status too, and gives back what the server made of them.
func (s *Server) Apply(text string) []*unstructured.Unstructured {
	s.t.Helper()
	all, err := Objects(text)
	if err != nil {
		s.t.Fatalf("%v in\n%s", err, text)
	}
	var out []*unstructured.Unstructured
	for _, o := range all {
		to := s.resource(o.GetAPIVersion(), o.GetKind(), o.GetNamespace())
		opts := metav1.ApplyOptions{FieldManager: "test", Force: true}
		got, err := to.Apply(s.context(), o.GetName(), o, opts)
		if err != nil {
			s.t.Fatalf("apply %s %s/%s: %v", o.GetKind(), o.GetNamespace(), o.GetName(), err)
		}
		if _, has := o.Object["status"]; has {
			if after, err := to.ApplyStatus(s.context(), o.GetName(), o, opts); err == nil {
				got = after
			} else if !apierrors.IsNotFound(err) { // without the subresource it is written already
				s.t.Fatalf("apply the status of %s %s/%s: %v", o.GetKind(), o.GetNamespace(), o.GetName(), err)
			}
		}
		out = append(out, got)
	}
	return out
}

// Get reads an object; nil for none.
func (s *Server) Get(apiVersion, kind, namespace, name string) *unstructured.Unstructured {
	s.t.Helper()
	o, err := s.resource(apiVersion, kind, namespace).Get(s.context(), name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		s.t.Fatalf("read %s %s/%s: %v", kind, namespace, name, err)
	}
	return o
}

// Delete takes an object away at once.
func (s *Server) Delete(apiVersion, kind, namespace, name string) {
	s.t.Helper()
	err := s.resource(apiVersion, kind, namespace).Delete(s.context(), name, metav1.DeleteOptions{GracePeriodSeconds: new(int64)})
	if err != nil && !apierrors.IsNotFound(err) {
		s.t.Fatalf("delete %s %s/%s: %v", kind, namespace, name, err)
	}
}

// Token is one of a service account, bound to a pod unless pod is "".
func (s *Server) Token(namespace, account, pod, audience string, life time.Duration) string {
	s.t.Helper()
	spec := map[string]any{"audiences": []any{audience}, "expirationSeconds": int64(life / time.Second)}
	if pod != "" {
		p := s.Get("v1", "Pod", namespace, pod)
		if p == nil {
			s.t.Fatalf("no pod %s/%s", namespace, pod)
		}
		spec["boundObjectRef"] = map[string]any{"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": string(p.GetUID())}
	}
	o := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": map[string]any{"name": account}, "spec": spec,
	}}
	got, err := s.resource("v1", "ServiceAccount", namespace).Create(s.context(), o, metav1.CreateOptions{}, "token")
	if err != nil {
		s.t.Fatalf("token of %s/%s: %v", namespace, account, err)
	}
	token, _, err := unstructured.NestedString(got.Object, "status", "token")
	if err != nil || token == "" {
		s.t.Fatalf("token of %s/%s: %v", namespace, account, err)
	}
	return token
}

// As is a client that shows a token.
func (s *Server) As(token string) *rest.Config {
	return &rest.Config{Host: s.Config.Host, TLSClientConfig: rest.TLSClientConfig{CAData: s.pki.ca}, BearerToken: token}
}

// Audience is that of tokens for the API server itself.
const Audience = issuer

// Define makes the API server serve a kind whose objects may hold anything, with a status of its own.
func (s *Server) Define(group, kind, plural string, namespaced bool, versions ...string) {
	s.t.Helper()
	scope := "Cluster"
	if namespaced {
		scope = "Namespaced"
	}
	var vs []any
	for i, v := range versions {
		open := map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true}
		vs = append(vs, map[string]any{
			"name": v, "served": true, "storage": i == 0, "subresources": map[string]any{"status": map[string]any{}},
			"schema": map[string]any{"openAPIV3Schema": open},
		})
	}
	o := map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": map[string]any{"name": plural + "." + group, "annotations": map[string]any{"api-approved.kubernetes.io": "unapproved, for a test"}},
		"spec": map[string]any{
			"group": group, "scope": scope, "versions": vs,
			"names": map[string]any{"kind": kind, "plural": plural, "singular": strings.ToLower(kind), "listKind": kind + "List"},
		},
	}
	text, err := json.Marshal(o)
	if err != nil {
		s.t.Fatal(err)
	}
	s.Apply(string(text))
	s.Established(plural + "." + group)
}

// Established waits until the API server serves what a CustomResourceDefinition defines.
func (s *Server) Established(name string) {
	s.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		o := s.Get("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", name)
		if o == nil {
			continue
		}
		conditions, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
		for _, c := range conditions {
			if c, ok := c.(map[string]any); ok && c["type"] == "Established" && c["status"] == "True" {
				return
			}
		}
	}
	s.t.Fatalf("%s is not established after %s", name, patience)
}

func (s *Server) context() context.Context { return context.Background() }

// resource is where objects of a kind are. The plural is the rule of English, which all kinds that are met here follow.
func (s *Server) resource(apiVersion, kind, namespace string) dynamic.ResourceInterface {
	gv, err := schema.ParseGroupVersion(apiVersion)
	if err != nil {
		s.t.Fatal(err)
	}
	r := s.client.Resource(gv.WithResource(Plural(kind)))
	if namespace == "" {
		return r
	}
	return r.Namespace(namespace)
}

// Plural is the name of a kind's resource.
func Plural(kind string) string {
	p := strings.ToLower(kind)
	switch {
	case strings.HasSuffix(p, "y") && !strings.HasSuffix(p, "ay"):
		return strings.TrimSuffix(p, "y") + "ies"
	case p == "endpoints":
		return p
	case strings.HasSuffix(p, "s"):
		return p + "es"
	}
	return p + "s"
}
