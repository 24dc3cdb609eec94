package files

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/ambit-mesh/ambit/control/source"
)

// Callers verifies ServiceAccount tokens with the keys of a JWKS file.
type Callers struct {
	path     string
	audience string
	now      func() time.Time

	mu   sync.Mutex          // guards below
	keys *jose.JSONWebKeySet // immutable
	seen stamp
}

// NewCallers reads keys from the file at path, again whenever it changes. Tokens must be for audience.
func NewCallers(path, audience string) *Callers {
	return &Callers{path: path, audience: audience, now: time.Now}
}

// Bounds and tolerance.
const (
	maxToken = 16 << 10
	maxJWKS  = 1 << 20
	leeway   = 10 * time.Second // between the clocks of who signs and who verifies
)

// claims are those of a Kubernetes ServiceAccount token.
type claims struct {
	jwt.Claims
	Kubernetes struct {
		Namespace string `json:"namespace"`
		Account   named  `json:"serviceaccount"`
		Pod       named  `json:"pod"`
		Node      named  `json:"node"`
	} `json:"kubernetes.io"`
}

type named struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
}

// Verify says whose token this is. It accepts no token without an end, for another audience or by another algorithm.
func (c *Callers) Verify(_ context.Context, token string) (source.Caller, error) {
	if len(token) > maxToken {
		return source.Caller{}, fmt.Errorf("token of %d bytes, more than %d", len(token), maxToken)
	}
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256, jose.RS256})
	if err != nil {
		return source.Caller{}, fmt.Errorf("parse token: %w", err)
	}
	keys, err := c.current()
	if err != nil {
		return source.Caller{}, err
	}
	var got claims
	if err := verify(parsed, keys, &got); err != nil {
		return source.Caller{}, err
	}
	if got.Expiry == nil {
		return source.Caller{}, fmt.Errorf("token has no end (exp)")
	}
	expect := jwt.Expected{AnyAudience: jwt.Audience{c.audience}, Time: c.now()}
	if err := got.ValidateWithLeeway(expect, leeway); err != nil {
		return source.Caller{}, fmt.Errorf("check token: %w", err)
	}
	return got.caller()
}

// verify tries the key that the token names, or each key when it names none.
func verify(t *jwt.JSONWebToken, keys *jose.JSONWebKeySet, into *claims) error {
	if len(t.Headers) != 1 {
		return fmt.Errorf("token has %d signatures, want one", len(t.Headers))
	}
	candidates := keys.Keys
	if id := t.Headers[0].KeyID; id != "" {
		candidates = keys.Key(id)
	}
	for _, k := range candidates {
		// A key that is marked for another algorithm must not verify this one.
		if !k.IsPublic() || k.Algorithm != "" && k.Algorithm != t.Headers[0].Algorithm {
			continue
		}
		*into = claims{}
		if err := t.Claims(k.Key, into); err == nil {
			return nil
		}
	}
	return fmt.Errorf("token is signed by no key that is known here (key id %q)", t.Headers[0].KeyID)
}

// caller reads the names, which must agree with the subject.
func (c claims) caller() (source.Caller, error) {
	k := c.Kubernetes
	if k.Namespace == "" || k.Account.Name == "" {
		return source.Caller{}, fmt.Errorf("token of %q names no service account", c.Subject)
	}
	if want := "system:serviceaccount:" + k.Namespace + ":" + k.Account.Name; c.Subject != want {
		return source.Caller{}, fmt.Errorf("token's subject is %q and its account %q", c.Subject, want)
	}
	for _, name := range []string{k.Namespace, k.Account.Name, k.Pod.Name, k.Node.Name} {
		if strings.ContainsAny(name, "/ \t\r\n\x00") {
			return source.Caller{}, fmt.Errorf("token has the name %q", name)
		}
	}
	return source.Caller{
		Namespace: k.Namespace, ServiceAccount: k.Account.Name,
		Pod: k.Pod.Name, PodUID: k.Pod.UID, Node: k.Node.Name,
	}, nil
}

// stamp tells whether a file is still the one that was read.
type stamp struct {
	size     int64
	modified time.Time
}

// current is the key set of the file as it is now. Without a readable file no token is good.
func (c *Callers) current() (*jose.JSONWebKeySet, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	info, err := os.Stat(c.path)
	if err != nil {
		return nil, fmt.Errorf("read token keys: %w", err)
	}
	now := stamp{info.Size(), info.ModTime()}
	if c.keys != nil && now == c.seen {
		return c.keys, nil
	}
	keys, err := readKeys(c.path, info.Size())
	if err != nil {
		return nil, fmt.Errorf("read token keys: %w", err)
	}
	c.keys, c.seen = keys, now
	return keys, nil
}

func readKeys(path string, size int64) (*jose.JSONWebKeySet, error) {
	if size > maxJWKS {
		return nil, fmt.Errorf("%s has %d bytes, more than %d", path, size, maxJWKS)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	keys := &jose.JSONWebKeySet{}
	if err := json.Unmarshal(data, keys); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(keys.Keys) == 0 {
		return nil, fmt.Errorf("%s holds no key", path)
	}
	return keys, nil
}
