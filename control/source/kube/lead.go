package kube

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// LeaseConfig is where and as whom a control plane takes part in an election.
type LeaseConfig struct {
	REST            *rest.Config
	Namespace, Name string
	Identity        string // of this process; something is added so that it is of no other
	// Sole says that no two processes ever have this Identity at a time, as with the name of a pod: a lead that an earlier
	// one had, which was killed, is taken over at once.
	Sole bool
	Log  *slog.Logger
	// Duration is how long a leader that is not heard of keeps the lead. Default 15s.
	Duration time.Duration
	// Renew is after how long a leader that cannot renew its lease gives up by itself. Default 10s; less than Duration.
	Renew time.Duration
	// Every is how often the lease is looked at. Default 2s.
	Every time.Duration
}

// Lease elects one leader among control planes by a Lease on the API server.
type Lease struct {
	conf LeaseConfig
	api  rest.Interface
	id   string

	seen    string    // owned by Run: version of the lease that was seen last
	at      time.Time // owned by Run: when it was first seen
	renewed time.Time // owned by Run: when we last asked for what was granted

	mu    sync.Mutex      // guards below
	term  context.Context // of the lead; nil for none
	end   context.CancelFunc
	other chan struct{} // closed when the lead is won
	work  sync.WaitGroup
}

// NewLease makes an election; Run takes part in it.
func NewLease(c LeaseConfig) (*Lease, error) {
	api, err := newClients(c.REST)
	if err != nil {
		return nil, err
	}
	c.Duration, c.Renew, c.Every = cmp.Or(c.Duration, 15*time.Second), cmp.Or(c.Renew, 10*time.Second), cmp.Or(c.Every, 2*time.Second)
	return &Lease{conf: c, api: api.groups[coordinationv1.GroupName], id: c.Identity + "_" + rand.Text()[:8], other: make(chan struct{})}, nil
}

// Leading reports whether this process leads now.
func (l *Lease) Leading() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.term != nil
}

// While runs f whenever this process leads, until ctx ends or f fails. The context of f ends with the lead.
func (l *Lease) While(ctx context.Context, f func(context.Context) error) error {
	for {
		l.mu.Lock()
		term, won := l.term, l.other
		if term != nil {
			l.work.Add(1)
		}
		l.mu.Unlock()
		if term == nil {
			select {
			case <-ctx.Done():
				return nil
			case <-won:
			}
			continue
		}
		both, stop := context.WithCancel(ctx)
		unhook := context.AfterFunc(term, stop)
		err := f(both)
		unhook()
		stop()
		l.work.Done()
		if ctx.Err() != nil || term.Err() == nil {
			return err // an end that we did not bring about
		}
	}
}

// Run takes part in the election until ctx ends. A lead that it has then is given to others at once.
func (l *Lease) Run(ctx context.Context) error {
	tick := time.NewTicker(l.conf.Every)
	defer tick.Stop()
	last := ""
	for {
		if err := l.round(ctx); err != nil && ctx.Err() == nil && err.Error() != last {
			last = err.Error()
			l.conf.Log.Warn("election of a leader", "error", err)
		} else if err == nil {
			last = ""
		}
		if l.Leading() && time.Since(l.renewed) > l.conf.Renew {
			l.lose("the lease could not be renewed")
		}
		select {
		case <-ctx.Done():
			l.release(ctx)
			return nil
		case <-tick.C:
		}
	}
}

// round looks at the lease, and takes or renews it where that is right.
func (l *Lease) round(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, l.conf.Duration-l.conf.Renew)
	defer cancel()
	begin := time.Now()
	now := metav1.NewMicroTime(begin)
	lease := &coordinationv1.Lease{}
	err := l.api.Get().Namespace(l.conf.Namespace).Resource("leases").Name(l.conf.Name).Do(ctx).Into(lease)
	if apierrors.IsNotFound(err) {
		lease = &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: l.conf.Namespace, Name: l.conf.Name}}
		l.holdBy(lease, l.id, now)
		err = l.api.Post().Namespace(l.conf.Namespace).Resource("leases").Body(lease).Do(ctx).Error()
		return l.granted(begin, err)
	}
	if err != nil {
		return fmt.Errorf("read the Lease %s/%s: %w", l.conf.Namespace, l.conf.Name, err)
	}
	if lease.ResourceVersion != l.seen {
		l.seen, l.at = lease.ResourceVersion, begin
	}
	holder := ""
	if lease.Spec.HolderIdentity != nil {
		holder = *lease.Spec.HolderIdentity
	}
	// Only our own clock counts: the lease must have stood still for as long as its holder may be silent.
	if holder != l.id && l.Leading() {
		l.lose(holder + " has taken the lease")
		return nil
	}
	if holder != "" && holder != l.id && !l.succeeds(holder) && begin.Sub(l.at) < l.conf.Duration {
		return nil
	}
	l.holdBy(lease, l.id, now)
	err = l.api.Put().Namespace(l.conf.Namespace).Resource("leases").Name(l.conf.Name).Body(lease).Do(ctx).Error()
	return l.granted(begin, err)
}

// succeeds tells whether the holder can only be an earlier process in our place.
func (l *Lease) succeeds(holder string) bool {
	name, _, _ := strings.Cut(holder, "_")
	return l.conf.Sole && name == l.conf.Identity
}

// holdBy writes into a lease who holds it from now on.
func (l *Lease) holdBy(lease *coordinationv1.Lease, id string, now metav1.MicroTime) {
	if lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity != id {
		lease.Spec.AcquireTime = &now
		if lease.Spec.LeaseTransitions == nil {
			lease.Spec.LeaseTransitions = new(int32)
		} else if id != "" {
			lease.Spec.LeaseTransitions = new(*lease.Spec.LeaseTransitions + 1)
		}
	}
	lease.Spec.HolderIdentity, lease.Spec.RenewTime = &id, &now
	lease.Spec.LeaseDurationSeconds = new(int32(max(1, l.conf.Duration/time.Second)))
}

// granted takes in what the server said of our wish at begin.
func (l *Lease) granted(begin time.Time, err error) error {
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
		return nil // somebody was faster; the next round tells who
	}
	if err != nil {
		return fmt.Errorf("write the Lease %s/%s: %w", l.conf.Namespace, l.conf.Name, err)
	}
	l.renewed = begin
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.term == nil {
		l.term, l.end = context.WithCancel(context.Background())
		close(l.other)
		l.conf.Log.Info("this control plane leads: it writes status, root certificates and certificate authority", "lease", l.conf.Namespace+"/"+l.conf.Name)
	}
	return nil
}

// lose ends the lead and all work under it.
func (l *Lease) lose(why string) {
	l.mu.Lock()
	if l.term == nil {
		l.mu.Unlock()
		return
	}
	l.end()
	l.term, l.other = nil, make(chan struct{})
	l.mu.Unlock()
	l.work.Wait()
	l.conf.Log.Info("this control plane leads no more", "why", why)
}

// release gives the lead to whoever wants it.
func (l *Lease) release(ctx context.Context) {
	if !l.Leading() {
		return
	}
	l.lose("it ends")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	lease := &coordinationv1.Lease{}
	err := l.api.Get().Namespace(l.conf.Namespace).Resource("leases").Name(l.conf.Name).Do(ctx).Into(lease)
	if err == nil && lease.Spec.HolderIdentity != nil && *lease.Spec.HolderIdentity == l.id {
		l.holdBy(lease, "", metav1.NowMicro())
		err = l.api.Put().Namespace(l.conf.Namespace).Resource("leases").Name(l.conf.Name).Body(lease).Do(ctx).Error()
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		l.conf.Log.Warn("lease not given up; another leads when it has run out", "error", err)
	}
}
