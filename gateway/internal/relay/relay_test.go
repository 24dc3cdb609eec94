package relay

import (
	"net/netip"
	"testing"
)

// FuzzForwardedFor: of a chain only addresses are believed, and no more than there are trusted hops.
func FuzzForwardedFor(f *testing.F) {
	f.Add("1.2.3.4, 10.0.0.1", 1)
	f.Add("::1,x,1.1.1.1", 5)
	f.Fuzz(func(t *testing.T, value string, hops int) {
		if hops < 0 || hops > 100 {
			return
		}
		got := trusted([]string{value}, hops)
		if len(got) > hops {
			t.Fatalf("%q: %v for %d hops", value, got, hops)
		}
		for _, a := range got {
			if _, err := netip.ParseAddr(a); err != nil {
				t.Fatalf("%q gives %q", value, a)
			}
		}
	})
}

// FuzzMessages: however a stream of messages is cut, the same number is counted, and no more than fit into it.
func FuzzMessages(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x03one\x00\x00\x00\x00\x00"), uint8(2))
	f.Fuzz(func(t *testing.T, in []byte, cut uint8) {
		var whole, parts messages
		whole.see(in)
		for rest := in; len(rest) > 0; {
			n := min(len(rest), int(cut)+1)
			parts.see(rest[:n])
			rest = rest[n:]
		}
		if whole != parts || whole.n > int64(len(in)/5) {
			t.Fatalf("%q: %+v at once, %+v in parts", in, whole, parts)
		}
	})
}
