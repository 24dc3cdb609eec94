package kube

import (
	"context"
	"fmt"
	"net/http"

	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// clients talk to one API server over shared connections: in protobuf with what every server has, in JSON with the rest.
type clients struct {
	groups map[string]rest.Interface // by API group; of built-in kinds
	any    dynamic.Interface
}

func newClients(c *rest.Config) (*clients, error) {
	out, err := connect(c)
	if err != nil {
		return nil, fmt.Errorf("reach the API server: %w", err)
	}
	return out, nil
}

func connect(c *rest.Config) (*clients, error) {
	c = rest.CopyConfig(c)
	if c.UserAgent == "" {
		c.UserAgent = "ambitd"
	}
	if c.QPS == 0 {
		c.QPS, c.Burst = 100, 200 // a status for each of many objects; the server has fairness of its own
	}
	h, err := rest.HTTPClientFor(c)
	if err != nil {
		return nil, err
	}
	out := &clients{groups: map[string]rest.Interface{}}
	if out.any, err = dynamic.NewForConfigAndClient(c, h); err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, discoveryv1.AddToScheme, coordinationv1.AddToScheme, authenticationv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	codecs := serializer.NewCodecFactory(scheme).WithoutConversion()
	for _, gv := range []schema.GroupVersion{corev1.SchemeGroupVersion, discoveryv1.SchemeGroupVersion, coordinationv1.SchemeGroupVersion, authenticationv1.SchemeGroupVersion} {
		if out.groups[gv.Group], err = typed(c, h, gv, codecs); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func typed(c *rest.Config, h *http.Client, gv schema.GroupVersion, codecs runtime.NegotiatedSerializer) (rest.Interface, error) {
	c = rest.CopyConfig(c)
	c.GroupVersion, c.APIPath, c.NegotiatedSerializer = &gv, "/apis", codecs
	if gv.Group == "" {
		c.APIPath = "/api"
	}
	c.ContentType = runtime.ContentTypeProtobuf
	c.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	return rest.RESTClientForConfigAndClient(c, h)
}

// resource is where objects of a kind in one of its versions are.
func (c *clients) resource(k kinds.Kind, version, namespace string) dynamic.ResourceInterface {
	r := c.any.Resource(schema.GroupVersionResource{Group: k.Group, Version: version, Resource: k.Plural})
	if namespace == "" {
		return r
	}
	return r.Namespace(namespace)
}

// get gives an object in one of its kind's versions, as the server has it; nil for none.
func (c *clients) get(ctx context.Context, k kinds.Kind, version, namespace, name string) (map[string]any, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	o, err := c.resource(k, version, namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s %s/%s: %w", k.Kind, namespace, name, err)
	}
	return o.Object, nil
}

// listWatch lists and watches a kind in one of its versions.
func (c *clients) listWatch(w what, version string) *cache.ListWatch {
	narrow := func(o metav1.ListOptions) metav1.ListOptions {
		o.FieldSelector, o.LabelSelector = w.fields, w.labels
		return o
	}
	if !w.builtin() {
		r := c.resource(w.Kind, version, "")
		return &cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return r.List(ctx, narrow(o)) },
			WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
				return r.Watch(ctx, narrow(o))
			},
		}
	}
	r := c.groups[w.Group]
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o = narrow(o)
			return r.Get().Resource(w.Plural).VersionedParams(&o, metav1.ParameterCodec).Do(ctx).Get()
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o = narrow(o)
			o.Watch = true
			return r.Get().Resource(w.Plural).VersionedParams(&o, metav1.ParameterCodec).Watch(ctx)
		},
	}
}
