package identity

import "testing"

func TestParse(t *testing.T) {
	ok := "spiffe://cluster.local/ns/default/sa/notsleep"
	got, err := Parse(ok)
	if want := (ID{"cluster.local", "default", "notsleep"}); err != nil || got != want {
		t.Fatalf("Parse(%q) = %v, %v; want %v", ok, got, err, want)
	}
	if got.String() != ok {
		t.Errorf("String() = %q, want %q", got.String(), ok)
	}
	for _, bad := range []string{
		"", "spiffe://", "cluster.local/ns/a/sa/b", "https://td/ns/a/sa/b", "SPIFFE://td/ns/a/sa/b",
		"spiffe://td/ns/a/sa/b/", "spiffe://td/ns//sa/b", "spiffe://td/ns/../sa/b", "spiffe://td/ns/a/sa/b\x00",
		"spiffe://td/ns/a/sa/b?x", "spiffe://td/ns/a%2f/sa/b", "spiffe://td:80/ns/a/sa/b", "spiffe://u@td/ns/a/sa/b",
		"spiffe://td/sa/a/ns/b", "spiffe:///ns/a/sa/b",
	} {
		if id, err := Parse(bad); err == nil {
			t.Errorf("Parse(%q) = %v, want an error", bad, id)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("spiffe://cluster.local/ns/default/sa/default")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := Parse(s)
		if err == nil && id.String() != s {
			t.Errorf("Parse(%q).String() = %q", s, id.String())
		}
	})
}
