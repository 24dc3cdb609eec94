package telemetry

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Somebody who is denied 50,000 times a second gets a few lines and a count; nothing is lost from the count.
func TestEqualLinesAreHeldBack(t *testing.T) { // RS-11
	for _, format := range []Format{Text, JSON, Walkthrough} {
		synctest.Test(t, func(t *testing.T) {
			got := logged(t, format, "info", func(h *Handler) {
				a := NewAccess(h)
				for i := range 50_000 {
					r := example(Inbound)
					r.Src.Addr = netip.AddrPortFrom(r.Src.Addr.Addr(), uint16(i))
					r.Err, r.Flag, r.Policy = "connection closed due to policy rejection: explicitly denied by: default/p", Denied, "default/p"
					a.End(r)
				}
				other := example(Inbound)
				other.Err = "connection failed: connection refused"
				a.End(other)
				a.End(example(Inbound)) // what went well is always told
				time.Sleep(window + time.Millisecond)
				synctest.Wait()
				a.End(other)
			})
			lines := strings.Split(strings.TrimSpace(got), "\n")
			if len(lines) != perLine+4 {
				t.Fatalf("%d lines, want %d:\n%s", len(lines), perLine+4, got)
			}
			if last := lines[perLine+2]; !strings.Contains(last, fmt.Sprint(50_000-perLine)) || !strings.Contains(last, "repeated") || !strings.Contains(last, "default/p") {
				t.Errorf("no count of what was held back: %s", last)
			}
		})
	}
}

func TestDifferentLinesAreBoundedToo(t *testing.T) { // RS-11
	synctest.Test(t, func(t *testing.T) {
		got := logged(t, Text, "info", func(h *Handler) {
			a := NewAccess(h)
			for i := range 5000 {
				r := example(Inbound)
				r.Err = fmt.Sprint("error ", i)
				a.End(r)
			}
			time.Sleep(window + time.Millisecond)
			synctest.Wait()
		})
		if n := strings.Count(got, "\n"); n != perWindow+1 || !strings.Contains(got, "repeated=4000\n") {
			t.Errorf("%d lines, want %d and one that counts the rest:\n%.2000s", n, perWindow+1, got[max(0, len(got)-2000):])
		}
	})
}

func TestBeginningsAreBoundedInTheWalkthrough(t *testing.T) { // RS-11
	synctest.Test(t, func(t *testing.T) {
		got := logged(t, Walkthrough, "info", func(h *Handler) {
			a := NewAccess(h)
			for range 5000 {
				a.Begin(example(Inbound))
			}
			time.Sleep(window + time.Millisecond)
			synctest.Wait()
			a.Begin(example(Inbound))
		})
		if n := strings.Count(got, "got CONNECT request"); n != perWindow+1 || !strings.Contains(got, "repeated=4000") {
			t.Errorf("%d beginnings, want %d, and a count of the rest", n, perWindow+1)
		}
	})
}

func BenchmarkDenied(b *testing.B) {
	levels, err := ParseLevels("info")
	if err != nil {
		b.Fatal(err)
	}
	a := NewAccess(NewHandler(discard{}, Text, levels))
	r := example(Inbound)
	r.Err, r.Flag, r.Policy = "connection closed due to policy rejection: explicitly denied by: default/p", Denied, "default/p"
	b.ReportAllocs()
	for b.Loop() {
		a.End(r)
	}
}

func BenchmarkAccessLine(b *testing.B) {
	for name, format := range map[string]Format{"text": Text, "json": JSON} {
		b.Run(name, func(b *testing.B) {
			levels, err := ParseLevels("info")
			if err != nil {
				b.Fatal(err)
			}
			a, r := NewAccess(NewHandler(discard{}, format, levels)), example(Inbound)
			b.ReportAllocs()
			for b.Loop() {
				a.End(r)
			}
		})
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
