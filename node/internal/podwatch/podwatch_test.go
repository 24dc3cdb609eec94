package podwatch_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"github.com/ambit-mesh/ambit/internal/testkit/fakeapi"
	"github.com/ambit-mesh/ambit/node/internal/objects"
	"github.com/ambit-mesh/ambit/node/internal/podwatch"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func client(t testing.TB, s *fakeapi.Server) *podwatch.Client {
	t.Helper()
	c, err := podwatch.NewClient(podwatch.ClientConfig{URL: s.URL, TokenFile: s.TokenFile, CAFile: s.CAFile})
	must(t, err)
	return c
}

// watch runs a Watch for the length of the test; changed gets each key.
func watch(t *testing.T, s *fakeapi.Server) (w *podwatch.Watch, changed chan objects.Key) {
	t.Helper()
	leaks := goleak.IgnoreCurrent()
	changed = make(chan objects.Key, 1000)
	w = podwatch.New(client(t, s), "n1", slog.New(slog.DiscardHandler), func(k objects.Key, _ podwatch.Change) { changed <- k })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
		s.Close()
		goleak.VerifyNone(t, leaks)
	})
	return w, changed
}

func wait(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("did not come: %s", what)
		}
	}
}

func expect(t *testing.T, changed chan objects.Key, name string) {
	t.Helper()
	select {
	case k := <-changed:
		if k != (objects.Key{Namespace: "default", Name: name}) {
			t.Fatalf("changed %s, want %s", k, name)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("no word of %s", name)
	}
}

func pod(name string) fakeapi.Object {
	o := fakeapi.Object{Metadata: fakeapi.Meta{Name: name, Namespace: "default", UID: "u-" + name}}
	o.Spec.NodeName = "n1"
	return o
}

func namespace(name, mode string) fakeapi.Object {
	return fakeapi.Object{Metadata: fakeapi.Meta{Name: name, Labels: map[string]string{"istio.io/dataplane-mode": mode}}}
}

func TestCopyFollowsTheServer(t *testing.T) {
	s := fakeapi.Start(t)
	a := pod("a")
	a.Spec.ServiceAccountName = "sa"
	a.Status.PodIP, a.Status.Phase = "10.0.0.1", "Running"
	s.Put(a)
	s.Put(namespace("default", "none"))
	w, changed := watch(t, s)
	<-w.Synced()
	expect(t, changed, "a")
	wait(t, "watches", func() bool { return s.Watchers() == 2 })
	for len(changed) > 0 { // the namespace may have come after the pod
		expect(t, changed, "a")
	}
	got, ns, known := w.Pod(objects.Key{Namespace: "default", Name: "a"})
	want := objects.Pod{
		Key: objects.Key{Namespace: "default", Name: "a"}, UID: "u-a", ServiceAccount: "sa", Phase: "Running",
		IPs: []netip.Addr{netip.MustParseAddr("10.0.0.1")},
	}
	if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); d != "" || !known || ns.Name != "default" {
		t.Errorf("-want +got:\n%s", d)
	}
	if asked := strings.Join(s.Requests(), "\n"); !strings.Contains(asked, "fieldSelector=spec.nodeName%3Dn1") {
		t.Errorf("pods of other nodes are asked for:\n%s", asked)
	}

	s.Put(pod("b"))
	expect(t, changed, "b")
	if b, _, _ := w.Pod(objects.Key{Namespace: "default", Name: "b"}); b.ServiceAccount != "default" || b.IPs != nil {
		t.Errorf("pod without account and address = %+v", b)
	}
	s.Put(namespace("other", "ambient")) // has no pods
	s.Put(namespace("default", "ambient"))
	if one, two := <-changed, <-changed; one == two {
		t.Errorf("changed %s twice, want both pods of the namespace", one)
	}
	s.Delete(pod("b"))
	expect(t, changed, "b")
	if _, _, known := w.Pod(objects.Key{Namespace: "default", Name: "b"}); known {
		t.Error("a deleted pod is known")
	}
	if len(w.Pods()) != 1 || len(changed) > 0 {
		t.Errorf("pods %v, and %d more words", w.Pods(), len(changed))
	}
}

func TestDeletionBetweenListAndWatchIsTold(t *testing.T) {
	s := fakeapi.Start(t)
	s.Put(namespace("default", ""))
	s.Put(pod("a"))
	var once atomic.Bool
	s.Hook(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/api/v1/pods" && r.URL.Query().Get("watch") == "true" && once.CompareAndSwap(false, true) {
			s.Delete(pod("a"))
		}
		return false
	})
	w, changed := watch(t, s)
	expect(t, changed, "a")
	wait(t, "the end of a pod that ended before the watch began", func() bool {
		_, _, known := w.Pod(objects.Key{Namespace: "default", Name: "a"})
		return once.Load() && !known
	})
}

func TestBookmarkMovesTheVersion(t *testing.T) {
	s := fakeapi.Start(t)
	w, _ := watch(t, s)
	<-w.Synced()
	wait(t, "watches", func() bool { return s.Watchers() == 2 })
	s.Send("/api/v1/pods", "BOOKMARK", map[string]any{"metadata": map[string]any{"resourceVersion": "777"}})
	time.Sleep(1100 * time.Millisecond) // a watch that ends sooner is taken for one that does not work
	s.Send("/api/v1/pods", "END", nil)
	wait(t, "watch from the bookmark", func() bool { return strings.Contains(strings.Join(s.Requests(), "\n"), "resourceVersion=777") })
}

// After each of these the copy is right again, from a new list.
func TestBrokenWatchListsAnew(t *testing.T) {
	gone := map[string]any{"kind": "Status", "code": 410, "message": "too old resource version"}
	for name, event := range map[string]struct {
		kind   string
		object any
	}{
		"410":               {"ERROR", gone},
		"other error":       {"ERROR", map[string]any{"code": 500, "message": "x"}},
		"error as text":     {"ERROR", "x"},
		"unknown kind":      {"RENAMED", pod("x")},
		"object as text":    {"ADDED", "x"},
		"labels as a list":  {"ADDED", map[string]any{"metadata": map[string]any{"labels": []string{"x"}}}},
		"no JSON":           {"", []byte("}{\n")},
		"end at once":       {"END", nil},
		"NUL bytes":         {"", make([]byte, 100)},
		"deep nesting":      {"", []byte(strings.Repeat("[", 100_000))},
		"HTML of a gateway": {"", []byte("<html>502</html>\n")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := fakeapi.Start(t)
			s.Put(pod("a"))
			ctx, cancel := context.WithCancel(t.Context())
			w := podwatch.New(client(t, s), "n1", slog.New(slog.DiscardHandler), func(objects.Key, podwatch.Change) {})
			done := make(chan error, 1)
			go func() { done <- w.Run(ctx) }()
			defer func() { cancel(); <-done }()
			<-w.Synced()
			wait(t, "watches", func() bool { return s.Watchers() == 2 })
			s.HoldWatches(true) // what changes now is only in the next list
			s.Put(pod("b"))
			s.Delete(pod("a"))
			s.Send("/api/v1/pods", event.kind, event.object)
			wait(t, "the new list", func() bool {
				_, _, a := w.Pod(objects.Key{Namespace: "default", Name: "a"})
				_, _, b := w.Pod(objects.Key{Namespace: "default", Name: "b"})
				return b && !a
			})
		})
	}
}

func TestServerThatFailsAtFirst(t *testing.T) {
	s := fakeapi.Start(t)
	s.Put(pod("a"))
	var asked atomic.Int64
	s.Hook(func(rw http.ResponseWriter, r *http.Request) bool {
		switch n := asked.Add(1); {
		case n <= 2:
			http.Error(rw, "starting", http.StatusServiceUnavailable)
		case n <= 3:
			fmt.Fprint(rw, `{"items":`)
		case n <= 4:
			fmt.Fprint(rw, `{"items":[{"metadata":{"name":3}}]}`)
		case n <= 5:
			http.Redirect(rw, r, "https://elsewhere.invalid/", http.StatusFound)
		default:
			return false
		}
		return true
	})
	w, _ := watch(t, s)
	select {
	case <-w.Synced():
	case <-time.After(15 * time.Second):
		t.Fatal("never synced")
	}
	if len(w.Pods()) != 1 {
		t.Errorf("pods = %v", w.Pods())
	}
}

func TestHugeAnswerIsRefused(t *testing.T) {
	s := fakeapi.Start(t)
	var sent atomic.Int64
	s.Hook(func(rw http.ResponseWriter, _ *http.Request) bool {
		fmt.Fprint(rw, `{"metadata":{"name":"`)
		block := strings.Repeat("x", 1<<20)
		for {
			n, err := io.WriteString(rw, block)
			sent.Add(int64(n))
			if err != nil || sent.Load() > 1<<30 {
				return true
			}
		}
	})
	if _, err := client(t, s).Pod(t.Context(), objects.Key{Namespace: "a", Name: "b"}); err == nil {
		t.Error("an endless object was read")
	}
	if sent.Load() > 256<<20 {
		t.Errorf("%d MiB were taken", sent.Load()>>20)
	}
}

func TestTokenIsReadForEachRequest(t *testing.T) {
	s := fakeapi.Start(t)
	s.Put(pod("a"))
	c, k := client(t, s), objects.Key{Namespace: "default", Name: "a"}
	for _, token := range []string{"one", "two"} {
		must(t, os.WriteFile(s.TokenFile, []byte(token+"\n"), 0o600))
		if _, err := c.Pod(t.Context(), k); err != nil {
			t.Fatal(err)
		}
		all := s.Requests()
		if got := all[len(all)-1]; !strings.HasSuffix(got, " Bearer "+token) {
			t.Errorf("asked %q, want token %s", got, token)
		}
	}
	must(t, os.Remove(s.TokenFile))
	if _, err := c.Pod(t.Context(), k); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a token: %v", err)
	}
}

func TestAnnotate(t *testing.T) {
	for _, refused := range []int{0, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed} {
		t.Run(fmt.Sprint("status refused with ", refused), func(t *testing.T) {
			s := fakeapi.Start(t)
			a := pod("a")
			a.Metadata.Annotations = map[string]string{"of-another": "x"}
			s.Put(a)
			s.Hook(func(rw http.ResponseWriter, r *http.Request) bool {
				if refused != 0 && strings.HasSuffix(r.URL.Path, "/status") {
					http.Error(rw, "no", refused)
					return true
				}
				return false
			})
			c, k := client(t, s), objects.Key{Namespace: "default", Name: "a"}
			must(t, c.Annotate(t.Context(), k, "key", "value"))
			if o, _ := s.Pod("default", "a"); o.Metadata.Annotations["key"] != "value" || o.Metadata.Annotations["of-another"] != "x" {
				t.Errorf("annotations %v", o.Metadata.Annotations)
			}
			must(t, c.Annotate(t.Context(), k, "key", ""))
			if o, _ := s.Pod("default", "a"); len(o.Metadata.Annotations) != 1 {
				t.Errorf("annotations %v", o.Metadata.Annotations)
			}
		})
	}
	s := fakeapi.Start(t)
	if err := client(t, s).Annotate(t.Context(), objects.Key{Namespace: "default", Name: "gone"}, "a", "b"); !podwatch.NotFound(err) {
		t.Errorf("of a pod that is gone: %v", err)
	}
}

func TestClientRefuses(t *testing.T) {
	s := fakeapi.Start(t)
	for name, c := range map[string]podwatch.ClientConfig{
		"no address":          {},
		"plain HTTP":          {URL: "http://10.96.0.1"},
		"no host":             {URL: "https://"},
		"no such roots":       {URL: s.URL, CAFile: "/does/not/exist"},
		"roots without roots": {URL: s.URL, CAFile: s.TokenFile},
	} {
		if _, err := podwatch.NewClient(c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	stranger, err := podwatch.NewClient(podwatch.ClientConfig{URL: s.URL, TokenFile: s.TokenFile})
	must(t, err)
	if _, err := stranger.Pod(t.Context(), objects.Key{Namespace: "a", Name: "b"}); err == nil || len(s.Requests()) > 0 {
		t.Errorf("a server of unknown roots was asked: %v, %v", err, s.Requests())
	}
}

func TestNamesCannotLeaveTheirPath(t *testing.T) {
	s := fakeapi.Start(t)
	_, err := client(t, s).Pod(t.Context(), objects.Key{Namespace: "../../secrets", Name: "a?b=c#d"})
	if !podwatch.NotFound(err) {
		t.Errorf("Pod = %v", err)
	}
	if got := s.Requests()[0]; !strings.HasPrefix(got, "GET /api/v1/namespaces/..%2F..%2Fsecrets/pods/a%3Fb=c%23d ") {
		t.Errorf("asked %q", got)
	}
}

// A TLS handshake costs both sides more than the request that it is made for.
func TestRequestsShareConnections(t *testing.T) {
	s := fakeapi.Start(t)
	o := fakeapi.Object{Metadata: fakeapi.Meta{Name: "web", Namespace: "default", UID: "u", Labels: map[string]string{"long": strings.Repeat("x", 20<<10)}}}
	s.Put(o)
	c, k := client(t, s), objects.Key{Namespace: "default", Name: "web"}
	const at, times = 8, 10
	var wg sync.WaitGroup
	for range at {
		wg.Go(func() {
			for i := range times {
				if err := c.Annotate(t.Context(), k, "key", fmt.Sprint(i)); err != nil {
					t.Error(err)
				}
				if _, err := c.Pod(t.Context(), k); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := s.Conns(); n > 2*at {
		t.Errorf("%d requests, %d at a time, took %d connections", 2*at*times, at, n)
	}
}
