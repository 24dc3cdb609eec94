package plugintoken_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ambit-mesh/ambit/node/internal/plugintoken"
)

var (
	errRefused = errors.New("refused")
	errAway    = errors.New("away")
)

// server gives tokens of a life, and may misbehave. Its lock is the test's but while time passes.
type server struct {
	sync.Mutex
	log         strings.Builder
	life        time.Duration
	fails       error            // of requests for tokens
	tries       map[string]error // of a token
	given, seen int
}

func (s *server) Write(b []byte) (int, error) {
	s.Lock()
	defer s.Unlock()
	return s.log.Write(b)
}

func (s *server) request(context.Context) (string, time.Time, error) {
	s.Lock()
	defer s.Unlock()
	s.seen++
	if s.fails != nil {
		return "", time.Time{}, s.fails
	}
	s.given++
	return fmt.Sprint("t", s.given), time.Now().Add(s.life), nil
}

func (s *server) try(_ context.Context, token string) error {
	s.Lock()
	defer s.Unlock()
	return s.tries[token]
}

type test struct {
	*testing.T
	*server
	k *plugintoken.Keeper
}

// run has a keeper in a bubble in which time passes by itself. Steps look at it between.
func run(t *testing.T, before func(s *server, k *plugintoken.Keeper), steps func(t test)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &server{life: 24 * time.Hour, tries: map[string]error{}}
		k := plugintoken.New(plugintoken.Config{
			Namespace: "istio-system", Account: "istio-cni-plugin", Request: s.request, Try: s.try,
			Refused: func(err error) bool { return errors.Is(err, errRefused) }, Log: slog.New(slog.NewTextHandler(s, nil)),
		})
		if before != nil {
			before(s, k)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- k.Run(ctx) }()
		synctest.Wait()
		s.Lock()
		steps(test{t, s, k})
		s.Unlock()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
}

func (t test) after(d time.Duration, token, why string) {
	t.Helper()
	t.Unlock()
	time.Sleep(d)
	synctest.Wait()
	t.Lock()
	if got := t.k.Token(); got != token {
		t.Errorf("%s: token %q, want %q; log:\n%s", why, got, token, t.log.String())
	}
}

func (t test) said(what string, times int) {
	t.Helper()
	if n := strings.Count(t.log.String(), what); n != times {
		t.Errorf("said %q %d times, want %d:\n%s", what, n, times, t.log.String())
	}
}

func TestRenewsAtHalfOfTheLifeThatTheServerGave(t *testing.T) {
	for _, life := range []time.Duration{10 * time.Second, time.Hour, 24 * time.Hour, 365 * 24 * time.Hour} {
		run(t, func(s *server, _ *plugintoken.Keeper) { s.life = life }, func(t test) {
			t.after(0, "t1", "at once")
			t.after(life/2-time.Millisecond, "t1", "before half of its life")
			t.after(life/10+3*time.Second, "t2", "after half of its life") // 5 % of the life are jitter, and some of the wait
			if t.seen != 2 {
				t.Errorf("%d requests for a life of %s", t.seen, life)
			}
			select {
			case <-t.k.Changed():
			default:
				t.Error("nobody is told")
			}
		})
	}
}

func TestKeepsTheLastGoodOne(t *testing.T) {
	run(t, nil, func(t test) {
		t.after(11*time.Hour, "t1", "before")
		t.fails = errAway
		t.after(12*time.Hour, "t1", "not renewed, and good for a while")
		t.said("is not renewed", 1)
		if most := 200; t.seen > most {
			t.Errorf("%d requests within half a day, want at most %d", t.seen, most)
		}
		t.after(2*time.Hour, "", "it has ended")
		t.said("agent's own token", 1)
		t.fails = nil
		t.after(6*time.Minute, "t2", "the API server is back")
		t.said("has a token of its own", 2)
	})
}

func TestNeverGotOne(t *testing.T) {
	run(t, func(s *server, _ *plugintoken.Keeper) { s.fails = errRefused }, func(t test) {
		t.after(time.Hour, "", "no right")
		t.said("agent's own token", 1)
		if t.seen < 10 || t.seen > 30 {
			t.Errorf("%d requests within an hour", t.seen)
		}
		t.fails = nil
		t.after(6*time.Minute, "t1", "the right has come")
	})
}

// A token that does not work is not the plugin's, whoever gave it: the agent's own is better than that.
func TestOnlyWhatWorksIsUsed(t *testing.T) {
	run(t, func(s *server, _ *plugintoken.Keeper) { s.tries["t1"] = errRefused }, func(t test) {
		t.after(0, "", "the account may nothing yet")
		t.after(2*time.Second, "t2", "now it may")
		t.tries["t2"] = errAway
		t.after(time.Hour, "t2", "that it cannot be tried says nothing")
		if t.given != 2 {
			t.Errorf("%d tokens", t.given)
		}
		t.tries["t2"], t.fails = errRefused, errAway
		t.after(12*time.Minute, "", "the account was made anew")
		t.fails = nil
		t.after(6*time.Minute, "t3", "and is there")
	})
}

func jwt(payload string) string {
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".c2ln"
}

func TestReuse(t *testing.T) {
	claims := func(subject string, made, ends time.Duration) func() string {
		return func() string {
			return jwt(fmt.Sprintf(`{"sub":%q,"iat":%d,"exp":%d}`, subject, time.Now().Add(made).Unix(), time.Now().Add(ends).Unix()))
		}
	}
	const ours = "system:serviceaccount:istio-system:istio-cni-plugin"
	text := func(s string) func() string { return func() string { return s } }
	for name, c := range map[string]struct {
		token  func() string
		tries  error
		reused bool
	}{
		"long enough":      {token: claims(ours, -time.Hour, 23*time.Hour), reused: true},
		"cannot be tried":  {token: claims(ours, -time.Hour, 23*time.Hour), tries: errAway, reused: true},
		"does not work":    {token: claims(ours, -time.Hour, 23*time.Hour), tries: errRefused},
		"half of its life": {token: claims(ours, -14*time.Hour, 10*time.Hour)},
		"ended":            {token: claims(ours, -25*time.Hour, -time.Hour)},
		"of tomorrow":      {token: claims(ours, 24*time.Hour, 48*time.Hour)},
		"the agent's":      {token: claims("system:serviceaccount:istio-system:istio-cni", -time.Hour, 23*time.Hour)},
		"nothing":          {token: text("")},
		"not a JWT":        {token: text("one")},
		"not base64":       {token: text("a.%.c")},
		"not JSON":         {token: text(jwt("{"))},
		"endless":          {token: text(jwt(`{"sub":"` + ours + `","iat":1,"exp":9223372036854775807}`))},
	} {
		t.Run(name, func(t *testing.T) {
			var left string
			run(t, func(s *server, k *plugintoken.Keeper) {
				left = c.token()
				s.tries[left] = c.tries
				k.Reuse(left)
			}, func(t test) {
				want := "t1"
				if c.reused {
					want = left
				}
				t.after(0, want, "at once")
				if (t.seen == 0) != c.reused {
					t.Errorf("%d requests", t.seen)
				}
				t.tries[left] = nil
				t.after(14*time.Hour, map[bool]string{true: "t1", false: "t2"}[c.reused], "later")
			})
		})
	}
}

// What is in the file is anybody's who is root, and keeps no agent from starting.
func FuzzReuse(f *testing.F) {
	f.Add("", `{"sub":"system:serviceaccount:istio-system:istio-cni-plugin","iat":1,"exp":99999999999}`)
	f.Add("a.b.c", `{"iat":-1}`)
	f.Fuzz(func(t *testing.T, text, payload string) {
		for _, token := range []string{text, jwt(payload)} {
			k := plugintoken.New(plugintoken.Config{Namespace: "istio-system", Account: "istio-cni-plugin"})
			k.Reuse(token)
			if got := k.Token(); got != "" && (got != token || strings.ContainsAny(got, " \r\n")) {
				t.Errorf("%q became %q", token, got)
			}
		}
	})
}
