package ambient

import (
	"fmt"
	"net/netip"
	"testing"
)

// A host keeps its address whoever comes and goes, and several control planes that see the same come to the same.
func TestAllocate(t *testing.T) {
	var claims []Claim
	for i := range 5000 {
		claims = append(claims, Claim{fmt.Sprintf("ns/e%d", i), "h.example"})
	}
	all := Allocate(nil, claims, nil)
	again := Allocate(nil, claims, nil)
	seen := map[Slot]Claim{}
	for _, c := range claims {
		s := all[c]
		if other, twice := seen[s]; twice || s == 0 || s > slots {
			t.Fatalf("%v and %v have slot %d", c, other, s)
		}
		seen[s] = c
		if again[c] != s {
			t.Fatalf("%v has %d and %d", c, s, again[c])
		}
		if !netip.MustParsePrefix("240.240.0.0/16").Contains(s.V4()) || !netip.MustParsePrefix("2001:2::/48").Contains(s.V6()) || SlotOf(s.V4()) != s || SlotOf(s.V6()) != s {
			t.Fatalf("slot %d is %v and %v", s, s.V4(), s.V6())
		}
	}
	fewer := Allocate(all, claims[2500:], nil)
	for _, c := range claims[2500:] {
		if fewer[c] != all[c] {
			t.Fatalf("%v moved from %d to %d as others left", c, all[c], fewer[c])
		}
	}
	more := Allocate(fewer, append([]Claim{{"a/new", "n"}}, claims[2500:]...), nil)
	for _, c := range claims[2500:] {
		if more[c] != all[c] {
			t.Fatalf("%v moved from %d to %d as another came", c, all[c], more[c])
		}
	}
	// What a person takes for himself is given to nobody else.
	mine := all[claims[0]]
	if moved := Allocate(all, claims[:10], map[Slot]bool{mine: true}); moved[claims[0]] == mine || moved[claims[1]] != all[claims[1]] {
		t.Errorf("slot %d is taken: %v", mine, moved)
	}
	for _, a := range []string{"10.0.0.1", "240.239.0.1", "2001:2::1", "::"} {
		if s := SlotOf(netip.MustParseAddr(a)); s != 0 {
			t.Errorf("%s is slot %d", a, s)
		}
	}
	// A full range leaves the rest without, and takes no time without end.
	many := make([]Claim, slots+10)
	for i := range many {
		many[i] = Claim{fmt.Sprint(i), "x"}
	}
	if got := Allocate(nil, many, nil); len(got) != slots {
		t.Errorf("%d of %d have an address", len(got), len(many))
	}
}
