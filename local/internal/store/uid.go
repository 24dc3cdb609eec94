package store

import (
	"crypto/rand"
	"fmt"

	"k8s.io/apimachinery/pkg/types"
)

// newUID is a random UUID (RFC 9562, version 4).
func newUID() types.UID {
	var b [16]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the program rather than give weak bytes
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return types.UID(fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]))
}
