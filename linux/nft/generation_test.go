package nft_test

import (
	"testing"

	"github.com/ambit-mesh/ambit/internal/testkit/netnstest"
	"github.com/ambit-mesh/ambit/linux/nft"
)

// While the generation is the one that Apply gave, nobody has changed a table.
func TestEveryChangeIsAnotherGeneration(t *testing.T) {
	ns := netnstest.New(t)
	mine, other := nft.Table{Name: "mine"}, nft.Table{Name: "other", Family: nft.IPv4}
	p, err := nft.Compile(mine)
	must(t, err)
	was, err := p.Apply(ns)
	must(t, err)
	for name, change := range map[string]func() error{
		"nothing":              nil,
		"another's table made": func() error { return nft.Apply(ns, other) },
		"another's table gone": func() error { return nft.Delete(ns, other) },
		"the own table gone":   func() error { return nft.Delete(ns, mine) },
	} {
		if was, err = p.Apply(ns); err != nil || was == 0 {
			t.Fatalf("Apply = generation %d, %v", was, err)
		}
		if name == "another's table gone" {
			must(t, nft.Apply(ns, other))
			was, err = nft.Current(ns)
			must(t, err)
		}
		if change != nil {
			must(t, change())
		}
		now, err := nft.Current(ns)
		must(t, err)
		if (now == was) != (change == nil) {
			t.Errorf("%s: generation %d after %d", name, now, was)
		}
	}
}
