// Package plugintoken keeps a token of the CNI plugin's own at hand.
package plugintoken

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// Config says where tokens come from.
type Config struct {
	// Namespace and Account are the plugin's service account.
	Namespace, Account string
	// Request asks for a token.
	Request func(ctx context.Context) (token string, ends time.Time, err error)
	// Try asks the API server with a token for what the plugin asks.
	Try func(ctx context.Context, token string) error
	// Refused tells errors of Try that the token itself is the reason of.
	Refused func(error) bool
	Log     *slog.Logger
}

// Keeper has the token. A token is the plugin's only once it was seen to work.
type Keeper struct {
	conf    Config
	changed chan struct{}
	said    state // only Run uses it

	mu   sync.Mutex // guards below
	have token
}

// state is what the plugin has, for the log.
type state int

const (
	unknown state = iota
	good
	late    // the one it has is good for a while, and should have been renewed
	nothing // of its own
)

type token struct {
	text        string
	renew, ends time.Time
}

// New makes a keeper without a token; Run works.
func New(c Config) *Keeper { return &Keeper{conf: c, changed: make(chan struct{}, 1)} }

// Token is the plugin's, or "" while there is none that is valid.
func (k *Keeper) Token() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !time.Now().Before(k.have.ends) {
		return ""
	}
	return k.have.text
}

// Ends is when the token ends.
func (k *Keeper) Ends() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.have.ends
}

// Changed tells that Token gives another.
func (k *Keeper) Changed() <-chan struct{} { return k.changed }

// Reuse takes a token that an earlier agent left, if it is the plugin's and lives long enough. Run tries it first.
func (k *Keeper) Reuse(text string) {
	subject, made, ends, ok := read(text)
	if !ok || subject != "system:serviceaccount:"+k.conf.Namespace+":"+k.conf.Account || time.Now().Before(made.Add(-clocks)) {
		return
	}
	if t := newToken(text, made, ends); time.Now().Before(t.renew) {
		k.have = t
	}
}

// newToken is renewed at half of its life, not by all nodes at once.
func newToken(text string, made, ends time.Time) token {
	return token{text, made.Add(jittered(ends.Sub(made) / 2)), ends}
}

// jittered is at most a tenth more.
func jittered(d time.Duration) time.Duration { return d + rand.N(d/10+1) }

const (
	clocks   = time.Minute      // by which the API server's clock may be ahead
	tryEvery = 10 * time.Minute // the account may be made anew, or lose its rights
	retryMin = time.Second
	retryMax = 5 * time.Minute
)

// Run gets a token, tries it from time to time and renews it, until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	retry := retryMin
	for {
		err := k.look(ctx)
		if ctx.Err() != nil {
			return nil
		}
		k.say(err)
		wait := tryEvery
		if err != nil {
			wait, retry = retry, min(2*retry, retryMax)
		} else {
			retry = retryMin
			wait = max(retryMin, min(wait, time.Until(k.have.renew))) // only this goroutine writes it
		}
		t := time.NewTimer(jittered(wait))
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
	}
}

// look makes sure of a token that is good for a while.
func (k *Keeper) look(ctx context.Context) error {
	if have := k.have; have.text != "" && time.Now().Before(have.renew) {
		err := k.conf.Try(ctx, have.text)
		switch {
		case err == nil:
			return nil
		case !k.conf.Refused(err):
			return fmt.Errorf("try the token: %w", err) // it is as good as it was
		}
		k.set(token{})
	}
	made := time.Now()
	text, ends, err := k.conf.Request(ctx)
	if err != nil {
		return err
	}
	if err := k.conf.Try(ctx, text); err != nil {
		return fmt.Errorf("service account %s/%s cannot read pods and namespaces: %w", k.conf.Namespace, k.conf.Account, err)
	}
	k.set(newToken(text, made, ends))
	return nil
}

func (k *Keeper) set(t token) {
	k.mu.Lock()
	k.have = t
	k.mu.Unlock()
	select {
	case k.changed <- struct{}{}:
	default: // nobody has looked since the last change
	}
}

// say tells of changes.
func (k *Keeper) say(err error) {
	now := good
	switch {
	case err != nil && k.Token() == "":
		now = nothing
	case err != nil:
		now = late
	}
	if now == k.said {
		return
	}
	k.said = now
	log := k.conf.Log.With("account", k.conf.Namespace+"/"+k.conf.Account)
	switch now {
	case nothing:
		log.Warn("the plugin gets the agent's own token, which ends with the agent's pod: new pods would wait then, also those outside the mesh", "error", err)
	case late:
		log.Warn("the plugin's token is not renewed, will retry", "until", k.have.ends, "error", err)
	default:
		log.Info("the plugin has a token of its own", "until", k.have.ends)
	}
}
