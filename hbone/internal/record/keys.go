// Package record is TLS 1.3's record layer behind a finished handshake: it seals and opens records in place.
package record

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"

	"github.com/ambit-mesh/ambit/hbone/internal/gcm"
)

// suite is what a cipher suite means here.
type suite struct {
	key  int // bytes
	hash func() hash.Hash
}

func suiteOf(id uint16) (suite, bool) {
	switch id {
	case tls.TLS_AES_128_GCM_SHA256:
		return suite{16, sha256.New}, true
	case tls.TLS_AES_256_GCM_SHA384:
		return suite{32, sha512.New384}, true
	}
	return suite{}, false
}

// Known reports whether a cipher suite can be taken over. The others of TLS 1.3 stay with crypto/tls.
func Known(id uint16) bool {
	_, ok := suiteOf(id)
	return ok
}

// half is the keys of one direction (RFC 8446, section 7).
type half struct {
	suite  suite
	secret []byte
	aead   cipher.AEAD
	iv     [12]byte
	nonce  [12]byte
	seq    uint64 // records under the present key
}

func newHalf(s suite, secret []byte) (half, error) {
	h := half{suite: s, secret: bytes.Clone(secret)}
	return h, h.rekey()
}

// rekey derives key and IV from the secret.
func (h *half) rekey() error {
	key, err := expandLabel(h.suite, h.secret, "key", h.suite.key)
	if err != nil {
		return err
	}
	defer clear(key)
	iv, err := expandLabel(h.suite, h.secret, "iv", len(h.iv))
	if err != nil {
		return err
	}
	copy(h.iv[:], iv)
	clear(iv)
	if h.aead, err = newAEAD(key); err != nil {
		return fmt.Errorf("key of a TLS connection: %w", err)
	}
	h.seq = 0
	return nil
}

// newAEAD is AES-GCM, by the instructions that the processor has.
func newAEAD(key []byte) (cipher.AEAD, error) {
	if gcm.Supported() {
		k, err := gcm.New(key)
		if err != nil {
			return nil, err
		}
		return k, nil
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// update moves on to the next secret (RFC 8446, section 7.2).
func (h *half) update() error {
	next, err := expandLabel(h.suite, h.secret, "traffic upd", len(h.secret))
	if err != nil {
		return err
	}
	clear(h.secret)
	h.secret = next
	h.dropKey()
	return h.rekey()
}

// step gives the nonce of the next record.
func (h *half) step() []byte {
	h.nonce = h.iv
	n := h.nonce[4:]
	binary.BigEndian.PutUint64(n, binary.BigEndian.Uint64(n)^h.seq)
	h.seq++
	return h.nonce[:]
}

// forget wipes what is secret, as far as it is ours.
func (h *half) forget() {
	clear(h.secret)
	clear(h.iv[:])
	clear(h.nonce[:])
	h.dropKey()
}

func (h *half) dropKey() {
	if k, ok := h.aead.(interface{ Forget() }); ok {
		k.Forget()
	}
	h.aead = nil
}

// expandLabel is HKDF-Expand-Label with an empty context.
func expandLabel(s suite, secret []byte, label string, n int) ([]byte, error) {
	info := make([]byte, 0, 32)
	info = binary.BigEndian.AppendUint16(info, uint16(n))
	info = append(info, byte(len("tls13 ")+len(label)))
	info = append(info, "tls13 "+label...)
	info = append(info, 0)
	out, err := hkdf.Expand(s.hash, secret, string(info), n)
	if err != nil {
		return nil, fmt.Errorf("derive %q: %w", label, err)
	}
	return out, nil
}

// Secrets collects the secrets of one connection: it is the KeyLogWriter of its handshake.
type Secrets struct{ client, server []byte }

// Write takes a line of the key log, and wipes it: nobody else shall read it.
func (s *Secrets) Write(line []byte) (int, error) {
	defer clear(line)
	words := bytes.Fields(line)
	if len(words) != 3 {
		return 0, errors.New("key log: not three words")
	}
	var to *[]byte
	switch string(words[0]) {
	case "CLIENT_TRAFFIC_SECRET_0":
		to = &s.client
	case "SERVER_TRAFFIC_SECRET_0":
		to = &s.server
	default:
		return len(line), nil
	}
	secret := make([]byte, hex.DecodedLen(len(words[2])))
	if _, err := hex.Decode(secret, words[2]); err != nil {
		return 0, fmt.Errorf("key log: %w", err)
	}
	*to = secret
	return len(line), nil
}

// Forget wipes the secrets.
func (s *Secrets) Forget() {
	clear(s.client)
	clear(s.server)
	s.client, s.server = nil, nil
}

// Take makes the two directions of a connection whose handshake is finished, and wipes the secrets.
func (s *Secrets) Take(state tls.ConnectionState, client bool) (*Reader, *Writer, error) {
	defer s.Forget()
	kind, ok := suiteOf(state.CipherSuite)
	if size := kind.hash; !ok || state.Version != tls.VersionTLS13 || !state.HandshakeComplete ||
		len(s.client) != size().Size() || len(s.server) != size().Size() {
		return nil, nil, fmt.Errorf("take over records: no secrets of TLS 1.3 with suite %s", tls.CipherSuiteName(state.CipherSuite))
	}
	ours, theirs := s.server, s.client
	if client {
		ours, theirs = s.client, s.server
	}
	w, err := newHalf(kind, ours)
	if err != nil {
		return nil, nil, err
	}
	r, err := newHalf(kind, theirs)
	if err != nil {
		return nil, nil, err
	}
	return &Reader{half: r, client: client}, &Writer{half: w}, nil
}
