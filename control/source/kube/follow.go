package kube

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/ambit-mesh/ambit/control/source"
)

const (
	// listTimeout is how long the server may take for a page of a list.
	listTimeout = time.Minute
	// probeEvery is how often it is asked for a kind that it does not serve.
	probeEvery = 3 * time.Second
	retryFirst = 500 * time.Millisecond
	retryLast  = 10 * time.Second
)

// errNotServed ends the following of a version that the server does not serve.
var errNotServed = errors.New("not served")

// run follows the kind until ctx ends: in the best version that the server serves, and in another when that changes.
func (in *intake) run(ctx context.Context) error {
	for ctx.Err() == nil {
		version := in.Version
		if !in.builtin() {
			var err error
			if version, err = in.served(ctx); err != nil {
				in.trouble(err)
			}
		}
		if version != "" {
			in.s.mu.Lock()
			in.version = version
			in.s.mu.Unlock()
			in.follow(ctx, version)
		}
		select {
		case <-ctx.Done():
		case <-time.After(probeEvery):
		}
	}
	return ctx.Err()
}

// served is the first version of the kind that the server serves; "" for none, and then what was known of the kind is
// gone too. An error tells nothing.
func (in *intake) served(ctx context.Context) (string, error) {
	for _, v := range in.Versions {
		ctx, cancel := context.WithTimeout(ctx, listTimeout)
		_, err := in.s.api.resource(in.Kind, v, "").List(ctx, metav1.ListOptions{Limit: 1, ResourceVersion: "0"})
		cancel()
		if err == nil {
			return v, nil
		}
		if !apierrors.IsNotFound(err) {
			return "", fmt.Errorf("ask for %s: %w", in.Resource(), err)
		}
	}
	in.s.mu.Lock()
	n := len(in.have)
	in.s.mu.Unlock()
	if n > 0 {
		// A server that has just begun, or what stands before it, may not know of its kinds yet.
		definition := schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
		ctx, cancel := context.WithTimeout(ctx, listTimeout)
		defer cancel()
		_, err := in.s.api.any.Resource(definition).Get(ctx, in.Resource(), metav1.GetOptions{})
		if err == nil || !apierrors.IsNotFound(err) {
			return "", fmt.Errorf("%s is not served, but it is not known to be gone: its objects stay in force", in.Resource())
		}
		in.s.log.Warn("kind is gone, and its objects with it", "kind", in.Resource(), "objects", n)
		return "", in.Replace(nil, "")
	}
	in.s.mu.Lock()
	defer in.s.mu.Unlock()
	in.completeLocked() // there are none
	return "", nil
}

// follow lists and watches until ctx ends or the version is not served any more.
func (in *intake) follow(ctx context.Context, version string) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	lw := in.s.api.listWatch(in.what, version)
	heard := func(err error) error {
		switch {
		case err == nil || ctx.Err() != nil:
		case !in.builtin() && apierrors.IsNotFound(err):
			stop(errNotServed)
		case apierrors.IsResourceExpired(err) || apierrors.IsGone(err): // it is listed again
		case !apierrors.IsInvalid(err): // that is how older servers refuse to stream a list
			in.trouble(err)
		}
		return err
	}
	asked := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			ctx, cancel := context.WithTimeout(ctx, listTimeout)
			defer cancel()
			list, err := lw.ListWithContextFunc(ctx, o)
			return list, heard(err)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			w, err := lw.WatchFuncWithContext(ctx, o)
			if err == nil && !ptr(o.SendInitialEvents) {
				in.good()
			}
			return w, heard(err)
		},
	}
	var expect runtime.Object = &unstructured.Unstructured{}
	if in.builtin() {
		expect = in.New()
	}
	cache.NewReflectorWithOptions(asked, expect, in, cache.ReflectorOptions{
		Name: in.Resource(), TypeDescription: in.Resource(),
		Backoff: &wait.Backoff{Duration: retryFirst, Factor: 2, Cap: retryLast, Steps: 10, Jitter: 0.5},
	}).RunWithContext(ctx)
}

func ptr(b *bool) bool { return b != nil && *b }

// trouble notes that the server does not answer for the kind.
func (in *intake) trouble(err error) {
	in.s.mu.Lock()
	defer in.s.mu.Unlock()
	why := err.Error()
	if apierrors.IsForbidden(err) {
		why += "; grant it in the ClusterRole of the control plane"
	}
	in.s.problemLocked(place{in, ""}, source.Problem{Why: why})
}

func (in *intake) good() {
	in.s.mu.Lock()
	defer in.s.mu.Unlock()
	in.s.problemLocked(place{in, ""}, source.Problem{})
}
