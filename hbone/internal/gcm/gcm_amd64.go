// Package gcm is AES-GCM for processors that do four blocks in one instruction (AVX-512 with VAES and VPCLMULQDQ): two
// to three times as fast as the standard library's, which does one.
package gcm

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"slices"

	"golang.org/x/sys/cpu"
)

const (
	blockLen  = 16
	chunkLen  = 16 * blockLen
	nonceLen  = 12
	tagLen    = 16
	maxRounds = 14
)

// keys is what the assembly works with. It knows the offsets.
type keys struct {
	round  [(maxRounds + 1) * blockLen]byte
	rounds uint64
	_      uint64
	// powers of the hash key from the sixteenth to the first, each times x and with its bytes reversed. What lies behind
	// is read, and multiplied by nothing.
	powers [16 + 3][blockLen]byte
}

//go:noescape
func sealChunks(k *keys, counter, hash *[16]byte, data *byte, chunks int)

//go:noescape
func openChunks(k *keys, counter, hash *[16]byte, data *byte, chunks int)

// keystream makes the 16 blocks that follow, and moves the counter on.
//
//go:noescape
func keystream(k *keys, counter *[16]byte, out *[chunkLen]byte)

// ghash adds 1 to 16 blocks to the hash, whose bytes are reversed.
//
//go:noescape
func ghash(k *keys, hash *[16]byte, data *byte, blocks int)

// subWord applies AES's S-box to four bytes.
func subWord(w uint32) uint32

// Supported reports whether the processor, and the system, can.
func Supported() bool {
	x := &cpu.X86
	return x.HasAES && x.HasAVX512F && x.HasAVX512BW && x.HasAVX512VL && x.HasAVX512DQ && x.HasAVX512VAES && x.HasAVX512VPCLMULQDQ && x.HasBMI2
}

// shortLen is below what the standard library seals as fast, or faster.
const shortLen = 512

// GCM is a key. It is a cipher.AEAD with the usual nonces and tags.
type GCM struct {
	k     keys
	short cipher.AEAD // for messages below shortLen; nil: none
}

var _ cipher.AEAD = (*GCM)(nil)

// New makes a key of 16 or 32 bytes. The processor must be Supported.
func New(key []byte) (*GCM, error) {
	if n := len(key); n != 16 && n != 32 {
		return nil, aes.KeySizeError(n)
	}
	if !Supported() {
		return nil, errors.New("gcm: the processor has no VAES, or no AVX-512")
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	short, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	g := &GCM{short: short}
	g.k.expand(key)
	var zero [blockLen]byte
	var stream [chunkLen]byte
	keystream(&g.k, &zero, &stream) // its first block is the hash key
	g.k.powers[15] = twist([blockLen]byte(stream[:blockLen]))
	clear(stream[:])
	clear(zero[:])
	for i := 14; i >= 0; i-- {
		g.k.powers[i] = g.k.powers[i+1]
		ghash(&g.k, &g.k.powers[i], &zero[0], 1) // times the first power
	}
	return g, nil
}

// expand is AES's key expansion (FIPS 197, section 5.2).
func (k *keys) expand(key []byte) {
	n := len(key) / 4
	k.rounds = uint64(n + 6)
	var w [4 * (maxRounds + 1)]uint32
	rcon := uint32(1)
	for i := range 4 * (n + 7) {
		switch {
		case i < n:
			w[i] = binary.LittleEndian.Uint32(key[4*i:])
		case i%n == 0:
			t := w[i-1]
			w[i] = w[i-n] ^ subWord(t>>8|t<<24) ^ rcon
			rcon = rcon<<1 ^ rcon>>7*0x11b
		case n > 6 && i%n == 4:
			w[i] = w[i-n] ^ subWord(w[i-1])
		default:
			w[i] = w[i-n] ^ w[i-1]
		}
		binary.LittleEndian.PutUint32(k.round[4*i:], w[i])
	}
	clear(w[:])
}

// twist reverses the bytes of a hash key and multiplies it by x, so that products need no shift.
func twist(h [blockLen]byte) (out [blockLen]byte) {
	hi, lo := binary.BigEndian.Uint64(h[:]), binary.BigEndian.Uint64(h[8:])
	carry := -(hi >> 63) // all ones or none
	hi, lo = hi<<1|lo>>63, lo<<1
	binary.LittleEndian.PutUint64(out[:], lo^carry&1)
	binary.LittleEndian.PutUint64(out[8:], hi^carry&0xc200000000000000)
	return out
}

// Forget wipes the key, as far as it is ours.
func (g *GCM) Forget() { g.k, g.short = keys{}, nil }

// NonceSize is 12.
func (g *GCM) NonceSize() int { return nonceLen }

// Overhead is 16.
func (g *GCM) Overhead() int { return tagLen }

// state is a message under way.
type state struct {
	counter, hash [16]byte
	stream        [chunkLen]byte
	used          int // of stream
	mask          [tagLen]byte
	blocks        [18 * blockLen]byte // that are not hashed yet
	n             int                 // bytes in blocks
}

func (s *state) begin(k *keys, nonce, ad []byte) {
	if len(nonce) != nonceLen {
		panic("gcm: a nonce has 12 bytes")
	}
	copy(s.counter[:], nonce)
	s.counter[15] = 1
	keystream(k, &s.counter, &s.stream)
	copy(s.mask[:], s.stream[:])
	s.used = blockLen
	for rest := ad; len(rest) > 0; {
		m := copy(s.blocks[:16*blockLen], rest)
		rest, s.n = rest[m:], (m+blockLen-1)/blockLen*blockLen
		if len(rest) > 0 || s.n > blockLen {
			s.absorb(k)
		}
	}
}

// absorb hashes the blocks that wait.
func (s *state) absorb(k *keys) {
	for at := 0; at < s.n; at += 16 * blockLen {
		ghash(k, &s.hash, &s.blocks[at], min(16, (s.n-at)/blockLen))
	}
	clear(s.blocks[:s.n])
	s.n = 0
}

// bulk seals or opens the whole chunks of p, and gives the rest.
func (s *state) bulk(k *keys, p []byte, open bool) []byte {
	chunks := len(p) / chunkLen
	if chunks == 0 {
		return p
	}
	s.absorb(k)
	s.restart()
	if open {
		openChunks(k, &s.counter, &s.hash, &p[0], chunks)
	} else {
		sealChunks(k, &s.counter, &s.hash, &p[0], chunks)
	}
	return p[chunks*chunkLen:]
}

// restart gives back what of the stream was not used.
func (s *state) restart() {
	back := uint32(chunkLen-s.used) / blockLen
	c := s.counter[12:]
	binary.BigEndian.PutUint32(c, binary.BigEndian.Uint32(c)-back)
	s.used = chunkLen
}

// xor masks p, which is shorter than a chunk.
func (s *state) xor(k *keys, p []byte) {
	for len(p) > 0 {
		if s.used == chunkLen {
			keystream(k, &s.counter, &s.stream)
			s.used = 0
		}
		n := subtle.XORBytes(p, p, s.stream[s.used:])
		s.used, p = s.used+n, p[n:]
	}
}

// take adds the end of a message to what is to be hashed.
func (s *state) take(p []byte) {
	copy(s.blocks[s.n:], p)
	s.n += (len(p) + blockLen - 1) / blockLen * blockLen
}

// tag ends a message.
func (s *state) tag(k *keys, ad, data int) [tagLen]byte {
	binary.BigEndian.PutUint64(s.blocks[s.n:], uint64(ad)*8)
	binary.BigEndian.PutUint64(s.blocks[s.n+8:], uint64(data)*8)
	s.n += blockLen
	s.absorb(k)
	t := s.hash
	slices.Reverse(t[:])
	subtle.XORBytes(t[:], t[:], s.mask[:])
	return t
}

func (s *state) wipe() {
	clear(s.stream[:])
	clear(s.mask[:])
	clear(s.blocks[:])
}

// Seal appends what plaintext becomes, and its tag, to dst. The two overlap wholly, as in plaintext[:0], or not at all.
func (g *GCM) Seal(dst, nonce, plaintext, ad []byte) []byte {
	if len(plaintext) < shortLen && g.short != nil {
		return g.short.Seal(dst, nonce, plaintext, ad)
	}
	ret := slices.Grow(dst, len(plaintext)+tagLen)[:len(dst)+len(plaintext)+tagLen]
	p := ret[len(dst) : len(dst)+len(plaintext)]
	copy(p, plaintext)
	var s state
	s.begin(&g.k, nonce, ad)
	rest := s.bulk(&g.k, p, false)
	s.xor(&g.k, rest)
	s.take(rest)
	t := s.tag(&g.k, len(ad), len(p))
	copy(ret[len(ret)-tagLen:], t[:])
	s.wipe()
	return ret
}

var errOpen = errors.New("cipher: message authentication failed")

// Open appends what was sealed to dst, or nothing if anybody changed it: then dst's room is wiped. ciphertext and dst
// overlap wholly, as in ciphertext[:0], or not at all.
func (g *GCM) Open(dst, nonce, ciphertext, ad []byte) ([]byte, error) {
	if len(ciphertext) < tagLen {
		return nil, errOpen
	}
	if len(ciphertext) < shortLen+tagLen && g.short != nil {
		return g.short.Open(dst, nonce, ciphertext, ad)
	}
	n := len(ciphertext) - tagLen
	want := [tagLen]byte(ciphertext[n:])
	ret := slices.Grow(dst, n)[:len(dst)+n]
	p := ret[len(dst):]
	copy(p, ciphertext[:n])
	var s state
	s.begin(&g.k, nonce, ad)
	rest := s.bulk(&g.k, p, true)
	s.take(rest)
	s.xor(&g.k, rest)
	t := s.tag(&g.k, len(ad), n)
	s.wipe()
	if subtle.ConstantTimeCompare(t[:], want[:]) != 1 {
		clear(p)
		return nil, errOpen
	}
	return ret, nil
}
