// Package token issues the ServiceAccount tokens of a local cluster and checks them.
package token

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// Issuer is the iss claim, Kubernetes' default.
const Issuer = "https://kubernetes.default.svc.cluster.local"

// APIAudience is the audience of tokens for the API server itself.
const APIAudience = Issuer

// Bound is an object that a token is bound to.
type Bound struct {
	Name string `json:"name"`
	UID  string `json:"uid,omitempty"`
}

// Identity is who a token speaks for: Kubernetes' private claims.
type Identity struct {
	Namespace      string `json:"namespace"`
	Pod            *Bound `json:"pod,omitempty"`
	Node           *Bound `json:"node,omitempty"`
	ServiceAccount Bound  `json:"serviceaccount"`
}

// Subject is the sub claim.
func (i Identity) Subject() string {
	return "system:serviceaccount:" + i.Namespace + ":" + i.ServiceAccount.Name
}

type claims struct {
	jwt.Claims
	Kubernetes Identity `json:"kubernetes.io"`
}

// Keys sign and check tokens.
type Keys struct {
	signer jose.Signer
	set    jose.JSONWebKeySet
}

// Open reads the signing key of a cluster from dir, or makes it, and keeps the public half beside it as sa.jwks.
func Open(dir string) (*Keys, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("token keys: %w", err)
	}
	path := filepath.Join(dir, "sa.key.json")
	var private jose.JSONWebKey
	b, err := os.ReadFile(path)
	switch {
	case err == nil:
		if err := json.Unmarshal(b, &private); err != nil {
			return nil, fmt.Errorf("token key %s: %w", path, err)
		}
	case errors.Is(err, fs.ErrNotExist):
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("token key: %w", err)
		}
		private = jose.JSONWebKey{Key: key, KeyID: "sa-1", Algorithm: string(jose.ES256), Use: "sig"}
		if err := writeJSON(path, private); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("token key: %w", err)
	}
	k := &Keys{set: jose.JSONWebKeySet{Keys: []jose.JSONWebKey{private.Public()}}}
	if err := writeJSON(filepath.Join(dir, "sa.jwks"), k.set); err != nil {
		return nil, err
	}
	k.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: private}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return nil, fmt.Errorf("token key %s: %w", path, err)
	}
	return k, nil
}

// Issue makes a token for an identity and one audience that is valid for ttl.
func (k *Keys) Issue(id Identity, audience string, ttl time.Duration) (string, error) {
	now := time.Now()
	return jwt.Signed(k.signer).Claims(claims{
		Claims: jwt.Claims{
			Issuer: Issuer, Subject: id.Subject(), Audience: jwt.Audience{audience},
			IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(ttl)),
		},
		Kubernetes: id,
	}).Serialize()
}

// Verify checks a token's signature, time and audience and tells who it speaks for.
func (k *Keys) Verify(raw, audience string) (Identity, error) {
	t, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return Identity{}, fmt.Errorf("token: %w", err)
	}
	var c claims
	if err := t.Claims(k.set, &c); err != nil {
		return Identity{}, fmt.Errorf("token: %w", err)
	}
	if err := c.Validate(jwt.Expected{Issuer: Issuer, AnyAudience: jwt.Audience{audience}, Time: time.Now()}); err != nil {
		return Identity{}, fmt.Errorf("token: %w", err)
	}
	if c.Expiry == nil || !slices.Contains(c.Audience, audience) || c.Subject != c.Kubernetes.Subject() {
		return Identity{}, errors.New("token: it lacks an expiry, the audience or a ServiceAccount")
	}
	return c.Kubernetes, nil
}

func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return writeFile(path, b)
}

// writeFile replaces a file as a whole.
func writeFile(path string, b []byte) error {
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
