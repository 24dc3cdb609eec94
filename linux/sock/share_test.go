package sock_test

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/testkit/netnstest"
	"github.com/ambit-mesh/ambit/linux/sock"
)

func TestConnectionsAreSteeredToOneOfTheListeners(t *testing.T) {
	ns := netnstest.New(t)
	o := sock.Options{ReusePort: true}
	old, err := sock.Listen(ns, addrPort("[::]:4000"), o)
	must(t, err)
	defer old.Close()
	ours, err := sock.Inode(old)
	must(t, err)
	if got, err := sock.Listeners(ns, 4000, 4001); err != nil || len(got) != 1 || !slices.Equal(got[4000], []uint64{ours}) {
		t.Fatalf("Listeners = %v, %v, want only %d", got, err, ours)
	}
	next, err := sock.Listen(ns, addrPort("[::]:4000"), o)
	must(t, err)
	defer next.Close()
	if got, err := sock.Listeners(ns, 4000); err != nil || len(got[4000]) != 2 || !slices.Contains(got[4000], ours) {
		t.Fatalf("Listeners = %v, %v, want two and one of them %d", got, err, ours)
	}
	const tries = 32 // a kernel that chooses would hit both
	for to, l := range []*net.TCPListener{old, next} {
		must(t, sock.Steer(old, uint32(to)))
		must(t, l.SetDeadline(time.Now().Add(5*time.Second)))
		for i := range tries {
			at := []string{"127.0.0.1:4000", "[::1]:4000"}[i%2]
			c, err := sock.Dial(t.Context(), ns, netip.AddrPort{}, addrPort(at), sock.Options{})
			must(t, err)
			s, err := l.AcceptTCP()
			must(t, err)
			must(t, s.Close())
			must(t, c.Close())
		}
	}
	// Alone, the last one gets all, whatever was said before.
	must(t, old.Close())
	must(t, next.SetDeadline(time.Now().Add(5*time.Second)))
	c, err := sock.Dial(t.Context(), ns, netip.AddrPort{}, addrPort("127.0.0.1:4000"), sock.Options{})
	must(t, err)
	s, err := next.AcceptTCP()
	must(t, err)
	must(t, s.Close())
	must(t, c.Close())
}
