package files

import (
	"path/filepath"
	"testing"
)

// What a broken or foreign file keeps never is read as more than it says: the round through what is kept changes nothing.
func FuzzKept(f *testing.F) {
	f.Add([]byte(denial), "it is broken\nkind: Pod")
	f.Add([]byte(service("a", "web", "one")+"---\n"+service("a", "more", "two")), "x")
	dir := f.TempDir()
	s, err := Open(Config{Dir: filepath.Join(dir, "objects"), Kept: filepath.Join(dir, "kept")})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte, why string) {
		c, err := s.parse("x.yaml", data)
		if err != nil || len(c.objects) == 0 {
			return
		}
		if s.conf.Kept.save("x.yaml", c, why) != nil {
			return // what Istio's encoder cannot write
		}
		kept, err := s.conf.Kept.load("x.yaml")
		if err != nil {
			t.Fatal(err)
		}
		again, err := s.parse("x.yaml", kept)
		if err != nil {
			t.Fatalf("%v\n%s", err, kept)
		}
		for i, e := range c.objects {
			if e.object != nil && again.objects[i].sum != e.sum {
				t.Fatalf("%v changed:\n%s", i, kept)
			}
		}
		if len(again.objects) > len(c.objects) {
			t.Fatalf("there is more than was kept:\n%s", kept)
		}
	})
}
