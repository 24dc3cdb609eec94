package gcm

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"math/rand/v2"
	"testing"
)

func both(t testing.TB, r *rand.ChaCha8, size int) (*GCM, cipher.AEAD) {
	t.Helper()
	if !Supported() {
		t.Skip("the processor has no VAES with AVX-512")
	}
	key := make([]byte, size)
	r.Read(key)
	g, err := New(key)
	if err != nil {
		t.Fatal(err)
	}
	g.short = nil
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	std, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	return g, std
}

func check(t *testing.T, r *rand.ChaCha8, g *GCM, std cipher.AEAD, n, ad int) {
	t.Helper()
	buf := make([]byte, nonceLen+ad+n)
	r.Read(buf)
	nonce, data, plain := buf[:nonceLen], buf[nonceLen:nonceLen+ad], buf[nonceLen+ad:]
	want := std.Seal(nil, nonce, plain, data)
	prefix := []byte("before")
	if got := g.Seal(prefix, nonce, plain, data); !bytes.Equal(got[6:], want) || string(got[:6]) != "before" {
		t.Fatalf("%d bytes with %d: sealed differently", n, ad)
	}
	room := make([]byte, n, n+tagLen)
	copy(room, plain)
	if got := g.Seal(room[:0], nonce, room, data); !bytes.Equal(got, want) || &got[0] != &room[:1][0] {
		t.Fatalf("%d bytes with %d: sealed differently in place", n, ad)
	}
	sealed := bytes.Clone(want)
	if got, err := g.Open(nil, nonce, sealed, data); err != nil || !bytes.Equal(got, plain) || !bytes.Equal(sealed, want) {
		t.Fatalf("%d bytes with %d: opened differently, %v", n, ad, err)
	}
	if got, err := g.Open(sealed[:0], nonce, sealed, data); err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("%d bytes with %d: opened differently in place, %v", n, ad, err)
	}
	forged := bytes.Clone(want)
	forged[r.Uint64()%uint64(len(forged))] ^= 1 << (r.Uint64() % 8)
	if got, err := g.Open(forged[:0], nonce, forged, data); err == nil || got != nil {
		t.Fatalf("%d bytes with %d: a forgery was opened", n, ad)
	}
	if !bytes.Equal(forged[:n], make([]byte, n)) {
		t.Fatalf("%d bytes with %d: a forgery was left in the clear", n, ad)
	}
	if ad > 0 {
		data[r.Uint64()%uint64(ad)] ^= 1
		if _, err := g.Open(nil, nonce, want, data); err == nil {
			t.Fatalf("%d bytes with %d: forged additional data was taken", n, ad)
		}
	}
}

func TestLikeTheStandardLibrary(t *testing.T) {
	for _, size := range []int{16, 32} {
		t.Run(fmt.Sprintf("AES-%d", 8*size), func(t *testing.T) {
			r := rand.NewChaCha8([32]byte{byte(size)})
			for range 3 {
				g, std := both(t, r, size)
				for n := range 1101 {
					check(t, r, g, std, n, 5)
				}
				for range 300 {
					check(t, r, g, std, int(r.Uint64()%20000), int(r.Uint64()%600))
				}
				for ad := range 300 {
					check(t, r, g, std, ad%17, ad)
				}
				for _, n := range []int{16383, 16384, 16385, 16640, 1 << 20} {
					check(t, r, g, std, n, 5)
				}
			}
		})
	}
}

// Short messages are the standard library's; both sides of the border fit.
func TestShortMessages(t *testing.T) {
	r := rand.NewChaCha8([32]byte{4})
	g, std := both(t, r, 16)
	g.short = std
	for n := shortLen - 40; n < shortLen+40; n++ {
		nonce, plain := make([]byte, nonceLen), make([]byte, n)
		r.Read(plain)
		sealed := g.Seal(nil, nonce, plain, plain[:5])
		if want := std.Seal(nil, nonce, plain, plain[:5]); !bytes.Equal(sealed, want) {
			t.Fatalf("%d bytes: sealed differently", n)
		}
		if got, err := g.Open(nil, nonce, sealed, plain[:5]); err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
}

func TestKeysThatAreNone(t *testing.T) {
	both(t, rand.NewChaCha8([32]byte{}), 16)
	for _, n := range []int{0, 15, 17, 24, 31, 33} {
		if _, err := New(make([]byte, n)); err == nil {
			t.Errorf("a key of %d bytes was taken", n)
		}
	}
}

func TestForget(t *testing.T) {
	g, _ := both(t, rand.NewChaCha8([32]byte{1}), 32)
	if g.Forget(); g.k != (keys{}) {
		t.Error("the key is left in memory")
	}
}

func FuzzLikeTheStandardLibrary(f *testing.F) {
	f.Add([]byte("0123456789abcdef"), []byte("nonce nonce "), []byte("text"), []byte("ad"))
	f.Add(make([]byte, 32), make([]byte, 12), make([]byte, 700), make([]byte, 40))
	f.Fuzz(func(t *testing.T, key, nonce, plain, ad []byte) {
		if !Supported() || len(nonce) != nonceLen || len(key) != 16 && len(key) != 32 {
			t.Skip()
		}
		g, err := New(key)
		if err != nil {
			t.Fatal(err)
		}
		g.short = nil
		block, _ := aes.NewCipher(key)
		std, _ := cipher.NewGCM(block)
		want := std.Seal(nil, nonce, plain, ad)
		if got := g.Seal(nil, nonce, plain, ad); !bytes.Equal(got, want) {
			t.Fatal("sealed differently")
		}
		if got, err := g.Open(nil, nonce, plain, ad); err == nil {
			if _, err := std.Open(nil, nonce, plain, ad); err != nil {
				t.Fatalf("opened %q", got)
			}
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	for _, size := range []int{16, 32} {
		g, std := both(b, rand.NewChaCha8([32]byte{2}), size)
		for _, n := range []int{64, 256, 1024, 16384} {
			for name, a := range map[string]cipher.AEAD{"ours": g, "std": std} {
				for _, way := range []string{"seal", "open"} {
					b.Run(fmt.Sprintf("AES-%d/%d/%s/%s", 8*size, n, way, name), func(b *testing.B) {
						buf, nonce, ad := make([]byte, n, n+16), make([]byte, 12), make([]byte, 5)
						out := make([]byte, 0, n+16)
						sealed := a.Seal(nil, nonce, buf, ad)
						b.SetBytes(int64(n))
						for range b.N {
							if way == "seal" {
								a.Seal(buf[:0], nonce, buf, ad)
							} else if _, err := a.Open(out, nonce, sealed, ad); err != nil {
								b.Fatal(err)
							}
						}
					})
				}
			}
		}
	}
}
