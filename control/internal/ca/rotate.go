package ca

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"slices"
	"time"
)

// Periods of a rotation.
type Periods struct {
	// Distribute is how long a new root is trusted before anything is signed under it: until each proxy has read it.
	Distribute time.Duration
	// Overlap is how long an old root stays trusted after the last certificate under it was signed.
	Overlap time.Duration
}

// Periods that suit a kubelet, which brings a changed ConfigMap to its pods within two minutes, and certificates of
// DefaultTTL.
const (
	Distribute = 3 * time.Minute
	Overlap    = DefaultTTL + time.Hour
)

// Rotation is how one authority takes over from another without a moment at which two proxies do not trust each other:
// the new root is trusted first, then signing changes, and the old root leaves last. The zero value is no rotation.
type Rotation struct {
	// Next names the authority that takes over, as its Name does.
	Next string
	// Signing goes on signing until Switch. Nil after that, and where its key is lost: then nothing is signed before Switch.
	Signing *Authority
	Switch  time.Time
	// Old are the roots that leave.
	Old []OldRoot
}

// OldRoot is a root that is trusted until a moment.
type OldRoot struct {
	Cert  *x509.Certificate
	Until time.Time
}

// Phase is how far a rotation is.
type Phase string

// Phases of a rotation.
const (
	Stable       Phase = "stable"
	Distributing Phase = "distributing the new root"
	Retiring     Phase = "retiring the old root"
)

// State is what is in force at one moment.
type State struct {
	Phase  Phase
	Signer *Authority // nil: nothing is signed before Next
	Bundle []*x509.Certificate
	Next   time.Time // when this changes by itself; zero for never
}

// Roots is the bundle in PEM.
func (s State) Roots() []byte {
	var out []byte
	for _, c := range s.Bundle {
		out = append(out, encodePEM(c)...)
	}
	return out
}

// Name tells authorities apart: by what they sign with and by the roots that they want to be trusted.
func (a *Authority) Name() string {
	h := sha256.New()
	h.Write(a.Issuer().Raw)
	h.Write(a.roots)
	return hex.EncodeToString(h.Sum(nil))
}

// At is what is in force at now, where own is the authority of the Secret.
func (r Rotation) At(own *Authority, now time.Time) State {
	s := State{Phase: Stable, Signer: own}
	if now.Before(r.Switch) {
		s.Phase, s.Signer, s.Next = Distributing, r.Signing, r.Switch
	}
	s.Bundle = add(nil, own.certs...)
	if s.Signer != nil {
		s.Bundle = add(s.Bundle, s.Signer.certs...)
	}
	for _, o := range r.Old {
		if !now.Before(o.Until) || o.Cert.NotAfter.Before(now) {
			continue
		}
		s.Bundle = add(s.Bundle, o.Cert)
		if s.Phase == Stable {
			s.Phase = Retiring
		}
		if s.Phase == Retiring && (s.Next.IsZero() || o.Until.Before(s.Next)) {
			s.Next = o.Until
		}
	}
	return s
}

// Begin plans how next takes over from what was in force. last is when the longest certificate under it ends.
func (r Rotation) Begin(was State, next *Authority, now, last time.Time, p Periods) Rotation {
	out := Rotation{Next: next.Name(), Switch: now}
	known := was.Bundle // by everybody
	if was.Phase == Distributing {
		// What was on its way in is not known yet, and nothing was signed under it.
		known = nil
		if r.Signing != nil {
			known = add(known, r.Signing.certs...)
		}
		for _, o := range r.Old {
			known = add(known, o.Cert)
		}
	}
	switch {
	case contains(known, next.Root()):
	case was.Phase == Distributing && contains(was.Bundle, next.Root()):
		out.Signing, out.Switch = r.Signing, r.Switch // the same root as before: its time counts
	default:
		out.Signing, out.Switch = was.Signer, now.Add(p.Distribute)
	}
	for _, c := range known {
		if contains(next.certs, c) {
			continue
		}
		until := out.Switch.Add(p.Overlap)
		if last.After(until) {
			until = last
		}
		for _, o := range r.Old {
			if o.Cert.Equal(c) && o.Until.Before(until) {
				until = o.Until // it was leaving already
			}
		}
		out.Old = append(out.Old, OldRoot{c, until})
	}
	return out
}

// Settled is r without what has passed at now; last is when the longest certificate of the former signer ends. Ok is
// false when nothing is left.
func (r Rotation) Settled(now, last time.Time) (out Rotation, changed, ok bool) {
	out = r
	if r.Signing != nil && !now.Before(r.Switch) {
		out.Signing, changed = nil, true // its key is needed no more
		out.Old = slices.Clone(r.Old)
		for i, o := range out.Old {
			if contains(r.Signing.certs, o.Cert) && last.After(o.Until) {
				out.Old[i].Until = last
			}
		}
	}
	kept := slices.DeleteFunc(slices.Clone(out.Old), func(o OldRoot) bool { return !now.Before(o.Until) || o.Cert.NotAfter.Before(now) })
	changed = changed || len(kept) != len(out.Old)
	out.Old = kept
	return out, changed, len(kept) > 0 || now.Before(out.Switch)
}

// Same reports whether two rotations are one.
func (r Rotation) Same(o Rotation) bool {
	return r.Next == o.Next && r.Switch.Equal(o.Switch) && (r.Signing == nil) == (o.Signing == nil) &&
		slices.EqualFunc(r.Old, o.Old, func(a, b OldRoot) bool { return a.Cert.Equal(b.Cert) && a.Until.Equal(b.Until) })
}

// Aging reports whether a root of our own is in the last fifth of its life, in which another is made.
func (a *Authority) Aging(now time.Time) bool {
	root := a.Root()
	if !root.Equal(a.Issuer()) {
		return false // the operator's: only he can make another
	}
	return now.After(root.NotAfter.Add(-root.NotAfter.Sub(root.NotBefore) / 5))
}

func contains(all []*x509.Certificate, c *x509.Certificate) bool {
	return slices.ContainsFunc(all, c.Equal)
}

func add(all []*x509.Certificate, more ...*x509.Certificate) []*x509.Certificate {
	for _, c := range more {
		if !contains(all, c) {
			all = append(all, c)
		}
	}
	return all
}
