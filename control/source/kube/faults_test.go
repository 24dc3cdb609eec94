package kube_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"github.com/ambit-mesh/ambit/collection"
	"github.com/ambit-mesh/ambit/control/source/kube"
	"github.com/ambit-mesh/ambit/internal/testkit/kubeapi"
)

// fault is what happens to requests on their way.
type fault func(*http.Request) (*http.Response, error)

// faulty are clients whose requests meet a fault while there is one.
type faulty struct {
	fault atomic.Pointer[fault]
	met   atomic.Int64
}

func (f *faulty) config(rc *rest.Config) *rest.Config {
	rc = rest.CopyConfig(rc)
	rc.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTrip(func(r *http.Request) (*http.Response, error) {
			if p := f.fault.Load(); p != nil {
				if res, err := (*p)(r); res != nil || err != nil {
					f.met.Add(1)
					return res, err
				}
			}
			return next.RoundTrip(r)
		})
	})
	return rc
}

func (f *faulty) set(to fault) { f.fault.Store(&to) }

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answer(r *http.Request, code int, body string) *http.Response {
	return &http.Response{
		StatusCode: code, Status: http.StatusText(code), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
	}
}

func refusal(r *http.Request, code int, reason string) *http.Response {
	return answer(r, code, fmt.Sprintf(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":%q,"message":"made up","code":%d}`, reason, code))
}

// withdrawn counts what goes out of the store while a test does not take it away.
func withdrawn(t *testing.T, s *kube.Source) *atomic.Int64 {
	n := new(atomic.Int64)
	t.Cleanup(s.Store().Objects.Pods.Watch(func(es []collection.Event[*corev1.Pod]) {
		for _, e := range es {
			if e.New == nil {
				n.Add(1)
			}
		}
	}))
	t.Cleanup(s.Store().Objects.AuthorizationPolicies.Watch(func(es []collection.Event[*securityv1.AuthorizationPolicy]) {
		for _, e := range es {
			if e.New == nil {
				n.Add(1)
			}
		}
	}))
	return n
}

// FT-18, F18: whatever the API server does, nothing that exists is withdrawn, and what happened meanwhile is caught up.
func TestFT18(t *testing.T) {
	api := kubeapi.Start(t)
	define(api, policyKind)
	api.Apply(basics + "---\n" + policy("p0", "{}"))
	for i := range 20 {
		api.Apply(pod(fmt.Sprintf("web-%d", i), fmt.Sprintf("10.0.1.%d", i)))
	}
	net := &faulty{}
	s, stop := follow(t, net.config(api.Config))
	synced(t, s)
	gone := withdrawn(t, s)
	o := s.Store().Objects
	n := 0
	// caughtUp changes something while the fault is there, ends the fault, and waits until it is known.
	caughtUp := func(t *testing.T) {
		t.Helper()
		n++
		name, ip := fmt.Sprintf("after-%d", n), fmt.Sprintf("10.0.2.%d", n)
		api.Apply(pod(name, ip) + "---\n" + policy(fmt.Sprintf("p%d", n), "{action: DENY, rules: [{}]}"))
		eventually(t, name+" is known", func() bool {
			_, a := o.Pods.Get("default/" + name)
			_, b := o.AuthorizationPolicies.Get(fmt.Sprintf("default/p%d", n))
			return a && b
		})
		if collection.Len(o.Pods) != 20+n || collection.Len(o.AuthorizationPolicies) != 1+n || gone.Load() != 0 {
			t.Errorf("%d pods, %d policies, %d withdrawn", collection.Len(o.Pods), collection.Len(o.AuthorizationPolicies), gone.Load())
		}
	}

	t.Run("restart", func(t *testing.T) {
		api.Stop()
		if collection.Len(o.Pods) != 20 {
			t.Error("pods went with the server")
		}
		api.Restart()
		caughtUp(t)
	})
	t.Run("half of all requests fail, the rest is slow, at a restart", func(t *testing.T) {
		net.set(func(r *http.Request) (*http.Response, error) {
			time.Sleep(time.Duration(rand.IntN(1000)) * time.Millisecond)
			switch rand.IntN(6) {
			case 0:
				return refusal(r, 500, "InternalError"), nil
			case 1:
				return refusal(r, 503, "ServiceUnavailable"), nil
			case 2:
				return nil, io.ErrUnexpectedEOF
			}
			return nil, nil
		})
		api.Restart()
		caughtUp(t)
		net.set(func(*http.Request) (*http.Response, error) { return nil, nil })
	})
	t.Run("410 Gone for every watch that goes on, and for the next pages of lists", func(t *testing.T) {
		before := net.met.Load()
		net.set(func(r *http.Request) (*http.Response, error) {
			q := r.URL.Query()
			if q.Get("watch") != "" && q.Get("sendInitialEvents") == "" || q.Get("continue") != "" {
				return refusal(r, 410, "Expired"), nil
			}
			return nil, nil
		})
		api.Restart()
		eventually(t, "somebody was told that it is gone", func() bool { return net.met.Load() > before })
		net.set(func(*http.Request) (*http.Response, error) { return nil, nil })
		caughtUp(t)
	})
	t.Run("404 and 403 for everything", func(t *testing.T) {
		for _, c := range []struct {
			code   int
			reason string
		}{{404, "NotFound"}, {403, "Forbidden"}} {
			before := net.met.Load()
			net.set(func(r *http.Request) (*http.Response, error) {
				if strings.Contains(r.URL.Path, "/customresourcedefinitions/") {
					return nil, nil
				}
				return refusal(r, c.code, c.reason), nil
			})
			api.Restart()
			eventually(t, "it was said many times", func() bool { return net.met.Load() > before+30 })
			eventually(t, "it is told", func() bool { return len(s.Problems()) > 0 })
			net.set(func(*http.Request) (*http.Response, error) { return nil, nil })
			caughtUp(t)
			eventually(t, "nothing is told any more", func() bool { return len(s.Problems()) == 0 })
		}
	})
	t.Run("answers that are cut off or are no objects", func(t *testing.T) {
		before := net.met.Load()
		net.set(func(r *http.Request) (*http.Response, error) {
			return answer(r, 200, `{"kind":"List","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[{"kind"`), nil
		})
		api.Restart()
		eventually(t, "they were read many times", func() bool { return net.met.Load() > before+30 })
		net.set(func(*http.Request) (*http.Response, error) { return nil, nil })
		caughtUp(t)
	})
	t.Run("a start is not complete before every list is", func(t *testing.T) {
		stop()
		other := &faulty{}
		other.set(func(r *http.Request) (*http.Response, error) {
			if strings.Contains(r.URL.Path, "authorizationpolicies") {
				return refusal(r, 503, "ServiceUnavailable"), nil
			}
			return nil, nil
		})
		s, _ := follow(t, other.config(api.Config))
		eventually(t, "policies were asked for many times", func() bool { return other.met.Load() > 5 })
		select {
		case <-s.Store().Objects.Pods.Synced():
			t.Error("synced without policies")
		default:
		}
		if ps := s.Problems(); len(ps) != 1 || ps[0].File != "authorizationpolicies.security.istio.io" {
			t.Errorf("problems %+v", ps)
		}
		other.set(func(*http.Request) (*http.Response, error) { return nil, nil })
		synced(t, s)
		if collection.Len(s.Store().Objects.AuthorizationPolicies) != 1+n {
			t.Errorf("synced with %d policies", collection.Len(s.Store().Objects.AuthorizationPolicies))
		}
	})
}
