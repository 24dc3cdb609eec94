package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/collection"
	"github.com/ambit-mesh/ambit/control/internal/ca"
	"github.com/ambit-mesh/ambit/control/source"
	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/mesh"
)

// caLooks is how often the CA is looked at without a reason: a root of our own grows old slowly.
const caLooks = time.Minute

// authority is the CA in force, and how another takes over from it.
type authority struct {
	conf    Config
	objects *source.Objects

	mu       sync.Mutex // guards below
	watchers map[chan struct{}]bool
	own      *ca.Authority
	rotation ca.Rotation
	state    ca.State
	stored   ca.Rotation          // as last seen in its Secret; the zero value for none
	replaced string               // name of the authority that we took out of the Secret ourselves
	longest  map[string]time.Time // when the longest certificate under an authority ends, by name
	problem  string               // why the Secret as it is now is not taken over; "" for nothing
	serving  serving
	made     bool // we made the Secret, and the source has not shown it yet
	unkept   bool // the rotation is not written down yet
}

func newAuthority(c Config, o *source.Objects) *authority {
	return &authority{conf: c, objects: o, watchers: map[chan struct{}]bool{}, longest: map[string]time.Time{}}
}

// signer signs now; nil while a root is on its way to the proxies and the key of the one before is lost.
func (a *authority) signer() *ca.Authority {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.state.Signer
}

// roots is the PEM that everybody must trust now.
func (a *authority) roots() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return string(a.state.Roots())
}

// watch gives a signal now, and whenever other roots must be trusted, until stop.
func (a *authority) watch() (changed <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	signal(c)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.watchers[c] = true
	return c, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.watchers, c)
	}
}

// signed is told of each certificate: the root above it must stay trusted for as long.
func (a *authority) signed(by *ca.Authority, until time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if name := by.Name(); until.After(a.longest[name]) {
		a.longest[name] = until
	}
}

// open reads the CA from its Secret: the operator's before our own. Without either it makes one and keeps it. A Secret
// that cannot be read stops us: another CA in its place would split the mesh.
func (a *authority) open(ctx context.Context) error {
	now := time.Now()
	found, made, err := a.findOrMake(ctx, now)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.own, a.made = found, made
	if a.stored, _, err = a.readRotation(now); err != nil {
		a.conf.Log.Error("rotation of the certificate authority not understood; what proxies trust now stays trusted", "error", err)
	}
	if a.stored.Next == found.Name() {
		a.rotation = a.stored
	} else if was, ok := a.before(now); ok {
		a.rotation = a.stored.Begin(was, found, now, time.Time{}, a.periods())
		a.keepLocked(ctx)
	}
	a.publishLocked(now)
	return nil
}

// findOrMake reads the CA or, where there is none, makes it. Of several control planes that do so at once one is first,
// and the others take what it made.
func (a *authority) findOrMake(ctx context.Context, now time.Time) (found *ca.Authority, made bool, err error) {
	for {
		if found, err = a.read(now); err != nil || found != nil {
			return found, false, err
		}
		if found, err = ca.NewSelfSigned(a.conf.TrustDomain, now); err != nil {
			return nil, false, fmt.Errorf("make a certificate authority: %w", err)
		}
		s, err := found.Secret(a.conf.RootNamespace)
		if err != nil {
			return nil, false, err
		}
		err = a.conf.Writer.Create(ctx, s)
		if err == nil {
			a.conf.Log.Info("made a certificate authority", "secret", s.Namespace+"/"+s.Name)
			return found, true, nil
		}
		if !errors.Is(err, source.ErrAnother) {
			return nil, false, fmt.Errorf("keep the certificate authority: %w", err)
		}
		a.conf.Log.Info("another control plane has made a certificate authority, waiting to see it", "secret", s.Namespace+"/"+s.Name)
		if !sleep(ctx, nil, time.Second) {
			return nil, false, ctx.Err()
		}
	}
}

// before finds out what was in force when we were away, if that was something else: what proxies trust is in a ConfigMap.
func (a *authority) before(now time.Time) (was ca.State, ok bool) {
	m, found := a.objects.ConfigMaps.Get(source.Key(a.conf.RootNamespace, mesh.RootConfigMap))
	if !found {
		return was, false
	}
	trusted, err := ca.ParseRoots(m.Data[mesh.RootConfigKey])
	if err != nil || slices.ContainsFunc(trusted, a.own.Root().Equal) {
		return was, false
	}
	was = ca.State{Phase: ca.Stable, Bundle: trusted, Signer: a.stored.Signing}
	if was.Signer == nil {
		// Where an operator has put his CA beside our own, ours goes on until his root has got around.
		if s, there := a.objects.Secrets.Get(source.Key(a.conf.RootNamespace, ca.SelfSignedSecret)); there {
			if old, err := ca.FromSecret(s, now); err == nil && slices.ContainsFunc(trusted, old.Root().Equal) {
				was.Signer = old
			}
		}
	}
	if was.Signer == nil {
		a.conf.Log.Warn("the certificate authority was replaced while the control plane was away and the old key is gone: "+
			"nothing is signed until the new root has got around", "for", a.conf.RootDistribute)
	}
	return was, true
}

// read gives the authority of the Secret that counts; nil without one.
func (a *authority) read(now time.Time) (*ca.Authority, error) {
	for _, name := range []string{ca.PluggedSecret, ca.SelfSignedSecret} {
		if s, ok := a.objects.Secrets.Get(source.Key(a.conf.RootNamespace, name)); ok {
			return ca.FromSecret(s, now)
		}
	}
	return nil, nil
}

func (a *authority) readRotation(now time.Time) (r ca.Rotation, there bool, err error) {
	s, ok := a.objects.Secrets.Get(source.Key(a.conf.RootNamespace, ca.RotationSecret))
	if !ok {
		return r, false, nil
	}
	r, err = ca.RotationFromSecret(s, now)
	return r, true, err
}

// follow takes over a CA whose Secret changes, and makes another root before our own one ends.
func (a *authority) follow(ctx context.Context) error {
	news := make(chan struct{}, 1)
	stop := a.objects.Secrets.Watch(func(es []collection.Event[*corev1.Secret]) {
		for _, e := range es {
			for _, name := range []string{ca.PluggedSecret, ca.SelfSignedSecret, ca.RotationSecret} {
				if e.Key == source.Key(a.conf.RootNamespace, name) {
					signal(news)
				}
			}
		}
	})
	defer stop()
	for {
		next := time.NewTimer(a.step(ctx, time.Now()))
		select {
		case <-ctx.Done():
		case <-news:
		case <-next.C:
		}
		next.Stop()
		if ctx.Err() != nil {
			return nil
		}
	}
}

// step brings everything up to date and says how long nothing will change by itself.
func (a *authority) step(ctx context.Context, now time.Time) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	var problems []string
	found, err := a.read(now)
	switch {
	case err != nil:
		problems = append(problems, "not taken over, the last one stays in force: "+err.Error())
	case found != nil:
		a.made = false
	case !a.made: // what we made ourselves may not have come back through the source yet
		problems = append(problems, "its Secret is gone; it stays in force until this process ends")
	}
	if err := a.followRotationLocked(now); err != nil {
		problems = append(problems, err.Error())
	}
	if found != nil && err == nil {
		a.takeOverLocked(ctx, found, now)
	}
	if err := a.renewLocked(ctx, now); err != nil {
		problems = append(problems, "there is no other root certificate yet: "+err.Error())
	}
	a.complainLocked(strings.Join(problems, "; "))
	if after, changed, going := a.rotation.Settled(now, a.longestLocked(a.rotation.Signing)); changed {
		if !going {
			after = ca.Rotation{}
		}
		a.rotation = after
		a.keepLocked(ctx)
	} else if a.unkept && a.leads() {
		a.keepLocked(ctx)
	}
	a.publishLocked(now)
	if wait := a.state.Next.Sub(now); !a.state.Next.IsZero() && wait < caLooks {
		return max(wait, time.Millisecond)
	}
	return caLooks
}

func (a *authority) complainLocked(problem string) {
	if problem != a.problem && problem != "" {
		a.conf.Log.Error("certificate authority", "problem", problem)
	}
	a.problem = problem
}

// followRotationLocked takes in what others did with the rotation: another control plane, or an operator who ended it.
func (a *authority) followRotationLocked(now time.Time) error {
	stored, there, err := a.readRotation(now)
	switch {
	case err != nil:
	case !there && a.stored.Next != "":
		if a.rotation.Next == a.stored.Next {
			a.rotation = ca.Rotation{}
		}
		a.stored = ca.Rotation{}
	case there && !stored.Same(a.stored):
		a.stored = stored
		if stored.Next == a.own.Name() {
			a.rotation, a.unkept = stored, false
		}
	}
	return err
}

func (a *authority) takeOverLocked(ctx context.Context, found *ca.Authority, now time.Time) {
	switch name := found.Name(); {
	case name == a.replaced: // what we wrote has not come back yet
		return
	case name == a.own.Name():
		a.replaced = ""
		return
	case name == a.stored.Next: // another control plane was first
		a.rotation = a.stored
	default:
		a.rotation = a.rotation.Begin(a.state, found, now, a.longestLocked(a.state.Signer), a.periods())
		a.keepLocked(ctx)
	}
	a.own, a.replaced = found, ""
	a.conf.Log.Info("another certificate authority takes over", "root", found.Root().SerialNumber, "signsFrom", a.rotation.Switch)
}

// renewLocked makes another root when our own one grows old.
func (a *authority) renewLocked(ctx context.Context, now time.Time) error {
	if a.state.Phase != ca.Stable || !a.own.Aging(now) || a.replaced != "" {
		return nil
	}
	if _, plugged := a.objects.Secrets.Get(source.Key(a.conf.RootNamespace, ca.PluggedSecret)); plugged {
		return errors.New("the root in Secret " + ca.PluggedSecret + " ends on " + a.own.Root().NotAfter.Format(time.DateOnly) + "; put another one there")
	}
	if !a.leads() {
		return nil // who leads does it
	}
	next, err := ca.NewSelfSigned(a.conf.TrustDomain, now)
	if err != nil {
		return err
	}
	s, err := next.Secret(a.conf.RootNamespace)
	if err != nil {
		return err
	}
	before := a.rotation
	a.rotation = before.Begin(a.state, next, now, a.longestLocked(a.state.Signer), a.periods())
	if err := a.storeLocked(ctx); err != nil { // the old key first: without it nothing could be signed after a restart
		a.rotation = before
		return err
	}
	if err := a.conf.Writer.Apply(ctx, s); err != nil {
		a.rotation = before
		return fmt.Errorf("keep the new root: %w", err)
	}
	a.conf.Log.Info("made another root certificate, the old one ends soon", "old", a.own.Root().NotAfter, "signsFrom", a.rotation.Switch)
	a.replaced, a.own = a.own.Name(), next
	return nil
}

func (a *authority) periods() ca.Periods {
	return ca.Periods{Distribute: a.conf.RootDistribute, Overlap: a.conf.RootOverlap}
}

func (a *authority) longestLocked(of *ca.Authority) time.Time {
	if of == nil {
		return time.Time{}
	}
	return a.longest[of.Name()]
}

func (a *authority) leads() bool { return a.conf.Leader == nil || a.conf.Leader.Leading() }

// keepLocked writes the rotation down, or takes it away, if that is our task; else who leads does. It goes on without
// that and tries again later; only a restart would forget it.
func (a *authority) keepLocked(ctx context.Context) {
	a.unkept = true
	if !a.leads() {
		return
	}
	if err := a.storeLocked(ctx); err != nil {
		a.conf.Log.Error("rotation of the certificate authority not kept, a restart would forget it", "error", err)
	}
}

func (a *authority) storeLocked(ctx context.Context) error {
	if a.rotation.Next == "" || a.rotation.Signing == nil && len(a.rotation.Old) == 0 {
		if err := a.conf.Writer.Delete(ctx, secretKind(), a.conf.RootNamespace, ca.RotationSecret); err != nil {
			return fmt.Errorf("remove the rotation: %w", err)
		}
		a.unkept = false
		return nil
	}
	s, err := a.rotation.Secret(a.conf.RootNamespace)
	if err != nil {
		return err
	}
	if err := a.conf.Writer.Apply(ctx, s); err != nil {
		return fmt.Errorf("keep the rotation: %w", err)
	}
	a.unkept = false
	return nil
}

func secretKind() kinds.Kind { return kinds.Of(&corev1.Secret{}) }

// publishLocked puts in force what holds now.
func (a *authority) publishLocked(now time.Time) {
	was := a.state
	a.state = a.rotation.At(a.own, now)
	if string(was.Roots()) != string(a.state.Roots()) {
		for c := range a.watchers {
			signal(c)
		}
	}
	if was.Phase != "" && was.Phase != a.state.Phase {
		a.conf.Log.Info("certificate authority", "phase", a.state.Phase, "trusted", len(a.state.Bundle), "until", a.state.Next)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
