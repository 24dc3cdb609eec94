package kube_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/ambit-mesh/ambit/control/source/kube"
	"github.com/ambit-mesh/ambit/internal/testkit/kubeapi"
)

func candidate(t testing.TB, rc *rest.Config, name string) (l *kube.Lease, stop func()) {
	t.Helper()
	l, err := kube.NewLease(kube.LeaseConfig{
		REST: rc, Namespace: "default", Name: "lead", Identity: name, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Duration: 3 * time.Second, Renew: 1500 * time.Millisecond, Every: 100 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	ended := false
	stop = func() {
		if !ended {
			ended = true
			cancel()
			<-done
		}
	}
	t.Cleanup(stop)
	return l, stop
}

// Of several one leads, never two; one that cannot renew stops before another begins; one that ends hands over.
func TestLease(t *testing.T) {
	api := kubeapi.Start(t)
	cut := &faulty{}
	a, _ := candidate(t, cut.config(api.Config), "a")
	eventually(t, "a leads", a.Leading)
	b, stopB := candidate(t, api.Config, "b")
	var working, twice atomic.Int64
	work := func(l *kube.Lease) {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() {
			done <- l.While(ctx, func(ctx context.Context) error {
				if working.Add(1) > 1 {
					twice.Add(1)
				}
				<-ctx.Done()
				working.Add(-1)
				return nil
			})
		}()
		t.Cleanup(func() { cancel(); <-done })
	}
	work(a)
	work(b)
	eventually(t, "one works", func() bool { return working.Load() == 1 })
	if b.Leading() {
		t.Error("two lead")
	}
	cut.set(func(r *http.Request) (*http.Response, error) { return nil, errors.New("cut off") })
	eventually(t, "b takes over from a, which is cut off", b.Leading)
	if a.Leading() {
		t.Error("a leads although it cannot know")
	}
	eventually(t, "b works", func() bool { return working.Load() == 1 })
	cut.set(func(*http.Request) (*http.Response, error) { return nil, nil })
	begin := time.Now()
	stopB()
	eventually(t, "a takes over from b, which has ended", a.Leading)
	t.Logf("handed over in %s", time.Since(begin))
	if twice.Load() > 0 {
		t.Error("two worked at once")
	}
}

// What runs under the lead and fails is not begun again.
func TestWhileFails(t *testing.T) {
	api := kubeapi.Start(t)
	l, _ := candidate(t, api.Config, "a")
	want := errors.New("broken")
	if err := l.While(t.Context(), func(context.Context) error { return want }); !errors.Is(err, want) {
		t.Errorf("While = %v", err)
	}
}

// A control plane that was killed holds the lease for a while. Its successor in the same pod need not wait, others must.
func TestSuccessorLeadsAtOnce(t *testing.T) {
	api := kubeapi.Start(t)
	cut := &faulty{}
	run := func(rc *rest.Config, name string) *kube.Lease {
		l, err := kube.NewLease(kube.LeaseConfig{
			REST: rc, Namespace: "default", Name: "lead", Identity: name, Sole: true, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
			Duration: time.Hour, Renew: 59 * time.Minute, Every: 50 * time.Millisecond,
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		t.Cleanup(func() { cancel(); <-done })
		return l
	}
	killed := run(cut.config(api.Config), "pod-a")
	eventually(t, "the first leads", killed.Leading)
	cut.set(func(*http.Request) (*http.Response, error) { return nil, errors.New("dead") })
	other, successor := run(api.Config, "pod-b"), run(api.Config, "pod-a")
	eventually(t, "the successor leads", successor.Leading)
	if other.Leading() {
		t.Error("another pod leads before the lease is over")
	}
}
