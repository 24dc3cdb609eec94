package sock_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/testkit/netnstest"
	"github.com/ambit-mesh/ambit/linux/link"
	"github.com/ambit-mesh/ambit/linux/nft"
	"github.com/ambit-mesh/ambit/linux/sock"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func TestSocketsLiveInTheirNamespace(t *testing.T) {
	a, b := netnstest.New(t), netnstest.New(t)
	for _, to := range []string{"127.0.0.1:4000", "[::1]:4000"} {
		l, err := sock.Listen(a, addrPort(to), sock.Options{})
		must(t, err)
		c, err := sock.Dial(t.Context(), a, netip.AddrPort{}, addrPort(to), sock.Options{})
		must(t, err)
		s, err := l.AcceptTCP()
		must(t, err)
		must(t, s.Close())
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("read = %v, want the end", err)
		}
		must(t, c.Close())
		if _, err := sock.Dial(t.Context(), b, netip.AddrPort{}, addrPort(to), sock.Options{}); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("dial %s in the other namespace = %v, want refused", to, err)
		}
		must(t, l.Close())
	}
}

// Package net makes a second socket where no port is left. It must not be one of the wrong namespace, which here would get
// through: somebody listens there.
func TestNoPortLeftIsNoWayOut(t *testing.T) {
	ns := netnstest.New(t)
	must(t, link.SetSysctl(ns, "ipv4/ip_local_port_range", "5000 5000"))
	l, err := sock.Listen(ns, addrPort("127.0.0.1:4000"), sock.Options{})
	must(t, err)
	defer l.Close()
	out, err := sock.Listen(nil, addrPort("127.0.0.1:4000"), sock.Options{})
	must(t, err)
	defer out.Close()
	for _, from := range []netip.AddrPort{{}, addrPort("127.0.0.1:0")} {
		c, err := sock.Dial(t.Context(), ns, from, addrPort("127.0.0.1:4000"), sock.Options{})
		must(t, err)
		if c2, err := sock.Dial(t.Context(), ns, from, addrPort("127.0.0.1:4000"), sock.Options{}); !errors.Is(err, unix.EADDRNOTAVAIL) {
			t.Errorf("from %s with no port left: %v, %v", from, c2, err)
		}
		must(t, c.SetLinger(0))
		must(t, c.Close())
	}
	must(t, out.SetDeadline(time.Now().Add(time.Millisecond)))
	if c, err := out.Accept(); err == nil {
		t.Errorf("a connection from %s left the namespace", c.RemoteAddr())
	}
}

func TestDialEndsWithItsContext(t *testing.T) {
	ns := netnstest.New(t)
	// A device without anybody behind it: the connection can neither succeed nor fail.
	must(t, link.AddVeth(link.Veth{NS: ns, Name: "a", Peer: "b"}))
	must(t, link.AddAddr(ns, "a", netip.MustParsePrefix("10.0.0.1/24")))
	must(t, link.Up(ns, "a"))
	must(t, link.Up(ns, "b"))
	boom := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(20*time.Millisecond, func() { cancel(boom) })
	if _, err := sock.Dial(ctx, ns, netip.AddrPort{}, addrPort("10.0.0.2:1"), sock.Options{}); !errors.Is(err, boom) {
		t.Errorf("Dial = %v, want the context's cause", err)
	}
}

func TestSourceAddressIsKept(t *testing.T) {
	ns := netnstest.New(t)
	l, err := sock.Listen(ns, addrPort("127.0.0.1:4000"), sock.Options{ReusePort: true})
	must(t, err)
	defer l.Close()
	for _, from := range []string{"127.0.0.9:0", "127.0.0.9:4321"} {
		c, err := sock.Dial(t.Context(), ns, addrPort(from), addrPort("127.0.0.1:4000"), sock.Options{})
		must(t, err)
		s, err := l.AcceptTCP()
		must(t, err)
		got, want := s.RemoteAddr().(*net.TCPAddr).AddrPort(), addrPort(from)
		if got.Addr() != want.Addr() || want.Port() != 0 && got.Port() != want.Port() {
			t.Errorf("peer = %s, want %s", got, want)
		}
		must(t, s.Close())
		must(t, c.Close())
	}
	foreign := addrPort("203.0.113.7:0")
	if _, err := sock.Dial(t.Context(), ns, foreign, addrPort("127.0.0.1:4000"), sock.Options{}); !errors.Is(err, unix.EADDRNOTAVAIL) {
		t.Errorf("foreign source = %v, want refused", err)
	}
	fd, err := sock.ListenUDP(ns, foreign, sock.Options{Transparent: true})
	if err != nil {
		t.Errorf("foreign source of a transparent socket = %v, want it bound", err)
	} else {
		must(t, fd.Close())
	}
}

func TestListenersShareAPortOnlyIfToldTo(t *testing.T) {
	ns := netnstest.New(t)
	for _, share := range []bool{false, true} {
		o := sock.Options{ReusePort: share}
		first, err := sock.Listen(ns, addrPort("[::]:4000"), o)
		must(t, err)
		second, err := sock.Listen(ns, addrPort("[::]:4000"), o)
		if share {
			must(t, err)
			must(t, second.Close())
		} else if !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("second listener = %v, want address in use", err)
		}
		must(t, first.Close())
	}
}

func TestOriginalDestinationOfARedirectedConnection(t *testing.T) {
	ns := netnstest.New(t)
	must(t, nft.Apply(ns, nft.Table{Name: "t", Chains: []nft.Chain{{
		Name: "out", Type: nft.NAT, Hook: nft.Output, Priority: nft.PriorityDNAT,
		Rules: []nft.Rule{nft.If(nft.TCP(), nft.Dport(80), nft.NotMark(0x539, 0xfff)).Then(nft.Redirect(15001))},
	}}}))
	l, err := sock.Listen(ns, addrPort("[::]:15001"), sock.Options{})
	must(t, err)
	defer l.Close()
	for _, to := range []string{"127.0.0.3:80", "[::1]:80"} {
		c, err := sock.Dial(t.Context(), ns, netip.AddrPort{}, addrPort(to), sock.Options{})
		must(t, err)
		s, err := l.AcceptTCP()
		must(t, err)
		if got, err := sock.OriginalDst(s); err != nil || got != addrPort(to) {
			t.Errorf("OriginalDst = %v, %v, want %s", got, err, to)
		}
		must(t, s.Close())
		must(t, c.Close())
		if _, err := sock.Dial(t.Context(), ns, netip.AddrPort{}, addrPort(to), sock.Options{Mark: 0x539}); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("marked socket = %v, want it to reach the closed port", err)
		}
	}
}

func TestResetIsNoCleanEnd(t *testing.T) {
	ns := netnstest.New(t)
	l, err := sock.Listen(ns, addrPort("127.0.0.1:4000"), sock.Options{})
	must(t, err)
	defer l.Close()
	c, err := sock.Dial(t.Context(), ns, netip.AddrPort{}, addrPort("127.0.0.1:4000"), sock.Options{})
	must(t, err)
	defer c.Close()
	s, err := l.AcceptTCP()
	must(t, err)
	must(t, sock.Reset(s))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("read = %v, want a reset", err)
	}
}

func TestPeerOfAUnixSocketIsKnown(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unixpacket", path)
	must(t, err)
	defer l.Close()
	c, err := net.Dial("unixpacket", path)
	must(t, err)
	defer c.Close()
	s, err := l.Accept()
	must(t, err)
	defer s.Close()
	if uid, err := sock.PeerUID(s.(*net.UnixConn)); err != nil || int(uid) != os.Getuid() {
		t.Errorf("PeerUID = %d, %v, want %d", uid, err, os.Getuid())
	}
}
