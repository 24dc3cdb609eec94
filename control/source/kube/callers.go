package kube

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/peer"
	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"

	"github.com/ambit-mesh/ambit/control/source"
)

// Bounds of what is asked and remembered.
const (
	maxToken      = 16 << 10
	remembered    = 30 * time.Second // a token that was taken back is good for as long
	refusedFor    = 5 * time.Second  // and one that was bad is not asked for again
	mostVerdicts  = 8192
	reviewTimeout = 10 * time.Second
	// Reviews of tokens that are not remembered, for each address that asks: a node has a few proxies.
	reviewsPerSecond = 5
	reviewBurst      = 50
	mostAskers       = 8192
)

// Callers verifies ServiceAccount tokens by asking the API server. While that does not answer no token is good that was
// not a moment ago.
type Callers struct {
	audience string
	api      rest.Interface
	now      func() time.Time

	mu       sync.Mutex                     // guards below
	verdicts map[[sha256.Size]byte]*verdict // by token
	askers   map[string]*allowance          // by address
}

// verdict is what the server said of a token.
type verdict struct {
	done   chan struct{} // closed when the rest is there
	caller source.Caller
	err    error
	until  time.Time
}

// allowance is how many reviews an address may still cause.
type allowance struct {
	left float64
	at   time.Time
}

// NewCallers makes a verifier of tokens for audience.
func NewCallers(c *rest.Config, audience string) (*Callers, error) {
	api, err := newClients(c)
	if err != nil {
		return nil, err
	}
	return &Callers{
		audience: audience, api: api.groups[authenticationv1.GroupName], now: time.Now,
		verdicts: map[[sha256.Size]byte]*verdict{}, askers: map[string]*allowance{},
	}, nil
}

// Verify says whose token this is.
func (c *Callers) Verify(ctx context.Context, token string) (source.Caller, error) {
	ends, err := c.plausible(token)
	if err != nil {
		return source.Caller{}, err // a stranger's bytes are not worth a question
	}
	v, mine, err := c.verdictOf(sha256.Sum256([]byte(token)), asker(ctx))
	if err != nil {
		return source.Caller{}, err
	}
	if mine {
		c.review(ctx, token, ends, v)
	}
	select {
	case <-ctx.Done():
		return source.Caller{}, ctx.Err()
	case <-v.done:
		return v.caller, v.err
	}
}

// verdictOf finds what is remembered of a token, or, where nothing is, makes it the caller's task to find out.
func (c *Callers) verdictOf(sum [sha256.Size]byte, from string) (v *verdict, mine bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if v, ok := c.verdicts[sum]; ok && now.Before(v.until) {
		return v, false, nil
	}
	if !c.allowLocked(from, now) {
		return nil, false, fmt.Errorf("%s shows more tokens than are looked at", from)
	}
	if len(c.verdicts) >= mostVerdicts {
		c.forgetLocked(now)
	}
	v = &verdict{done: make(chan struct{}), until: now.Add(remembered)}
	c.verdicts[sum] = v
	return v, true, nil
}

func (c *Callers) allowLocked(from string, now time.Time) bool {
	a, ok := c.askers[from]
	if !ok {
		if len(c.askers) >= mostAskers {
			clear(c.askers) // each begins anew, which costs the server a burst for each
		}
		a = &allowance{left: reviewBurst, at: now}
		c.askers[from] = a
	}
	a.left = min(reviewBurst, a.left+max(0, now.Sub(a.at).Seconds())*reviewsPerSecond)
	a.at = now
	if a.left < 1 {
		return false
	}
	a.left--
	return true
}

// forgetLocked makes room: what is over goes, and if that is not enough, all that is decided.
func (c *Callers) forgetLocked(now time.Time) {
	for sum, v := range c.verdicts {
		if now.After(v.until) {
			delete(c.verdicts, sum)
		}
	}
	if len(c.verdicts) >= mostVerdicts {
		clear(c.verdicts)
	}
}

// review asks the server. What it does not answer is not remembered.
func (c *Callers) review(ctx context.Context, token string, ends time.Time, v *verdict) {
	// Others may wait for the answer when who asked first has gone.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reviewTimeout)
	defer cancel()
	out := &authenticationv1.TokenReview{}
	in := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{c.audience}}}
	err := c.api.Post().Resource("tokenreviews").Body(runtime.Object(in)).Do(ctx).Into(out)
	if err != nil {
		err = fmt.Errorf("the API server does not say whose token it is: %w", err)
	}
	caller := source.Caller{}
	if err == nil {
		caller, err = c.judge(out.Status)
	} else {
		c.mu.Lock()
		v.until = time.Time{}
		c.mu.Unlock()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil && !v.until.IsZero() {
		v.until = c.now().Add(refusedFor)
	}
	if ends.Before(v.until) {
		v.until = ends
	}
	v.caller, v.err = caller, err
	close(v.done)
}

// Names of what a token is bound to, in the extra of a review.
const (
	extraPod    = "authentication.kubernetes.io/pod-name"
	extraPodUID = "authentication.kubernetes.io/pod-uid"
	extraNode   = "authentication.kubernetes.io/node-name"
)

// judge reads a review.
func (c *Callers) judge(s authenticationv1.TokenReviewStatus) (source.Caller, error) {
	switch {
	case s.Error != "":
		return source.Caller{}, fmt.Errorf("the API server refuses the token: %s", s.Error)
	case !s.Authenticated:
		return source.Caller{}, errors.New("the API server does not know the token")
	case !slices.Contains(s.Audiences, c.audience):
		return source.Caller{}, fmt.Errorf("token is for %q, not for %s", s.Audiences, c.audience)
	}
	rest, ok := strings.CutPrefix(s.User.Username, "system:serviceaccount:")
	namespace, account, found := strings.Cut(rest, ":")
	if !ok || !found || namespace == "" || account == "" || strings.ContainsAny(account, ":/ ") {
		return source.Caller{}, fmt.Errorf("token is of %q, which is no service account", s.User.Username)
	}
	one := func(name string) (string, error) {
		switch v := s.User.Extra[name]; len(v) {
		case 0:
			return "", nil
		case 1:
			return v[0], nil
		}
		return "", fmt.Errorf("token names several as %s", name)
	}
	out := source.Caller{Namespace: namespace, ServiceAccount: account}
	var errs [3]error
	out.Pod, errs[0] = one(extraPod)
	out.PodUID, errs[1] = one(extraPodUID)
	out.Node, errs[2] = one(extraNode)
	if err := errors.Join(errs[:]...); err != nil {
		return source.Caller{}, err
	}
	return out, nil
}

// plausible sorts out what no server would accept, without believing anything that it reads: what is no token of a
// service account for the audience, or has ended. It tells when the token ends.
func (c *Callers) plausible(token string) (ends time.Time, err error) {
	if len(token) > maxToken {
		return ends, fmt.Errorf("token of %d bytes, more than %d", len(token), maxToken)
	}
	part := strings.Split(token, ".")
	if len(part) != 3 || part[2] == "" {
		return ends, errors.New("token is not of three parts")
	}
	data, err := base64.RawURLEncoding.DecodeString(part[1])
	if err != nil {
		return ends, fmt.Errorf("read token: %w", err)
	}
	var claims struct {
		Audience audiences `json:"aud"`
		Subject  string    `json:"sub"`
		Ends     float64   `json:"exp"`
	}
	if err := json.Unmarshal(data, &claims); err != nil {
		return ends, fmt.Errorf("read token: %w", err)
	}
	ends = time.Unix(int64(min(claims.Ends, 1<<40)), 0)
	switch {
	case !slices.Contains(claims.Audience, c.audience):
		return ends, fmt.Errorf("token is for %q, not for %s", []string(claims.Audience), c.audience)
	case !strings.HasPrefix(claims.Subject, "system:serviceaccount:"):
		return ends, fmt.Errorf("token is of %q, which is no service account", claims.Subject)
	case !c.now().Before(ends):
		return ends, errors.New("token has ended, or has no end")
	}
	return ends, nil
}

// audiences are one word or a list of them.
type audiences []string

// UnmarshalJSON reads either form.
func (a *audiences) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*a = audiences{one}
		return nil
	}
	var all []string
	if err := json.Unmarshal(data, &all); err != nil {
		return err
	}
	*a = all
	return nil
}

// asker is the address that a call comes from.
func asker(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return "the debug pages"
	}
	host := p.Addr.String()
	if i := strings.LastIndexByte(host, ':'); i > 0 {
		host = host[:i]
	}
	return host
}
