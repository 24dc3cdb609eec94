//go:build !amd64

// Package gcm is AES-GCM for processors that do four blocks in one instruction. There is none of this architecture.
package gcm

import (
	"crypto/cipher"
	"errors"
)

// Supported reports that the processor cannot.
func Supported() bool { return false }

// GCM is a key of which there is none.
type GCM struct{ cipher.AEAD }

// New refuses.
func New([]byte) (*GCM, error) { return nil, errors.New("gcm: not on this architecture") }

// Forget has nothing to wipe.
func (*GCM) Forget() {}
