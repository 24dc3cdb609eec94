package tcp_test

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/testkit/netnstest"
	"github.com/ambit-mesh/ambit/linux/nft"
	"github.com/ambit-mesh/ambit/linux/sock"
	"github.com/ambit-mesh/ambit/linux/tcp"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestConnections(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			ns := netnstest.New(t)
			addr := netip.MustParseAddr(host)
			l, err := sock.Listen(ns, netip.AddrPortFrom(addr, 8000), sock.Options{})
			must(t, err)
			defer l.Close()
			must(t, nft.Apply(ns, nft.Table{Family: nft.INet, Name: "t", Chains: []nft.Chain{{
				Name: "out", Type: nft.NAT, Hook: nft.Output, Priority: nft.PriorityDNAT, Rules: []nft.Rule{
					nft.If(nft.TCP(), nft.SYN(), nft.Dport(80)).Then(nft.Redirect(8000)),
				},
			}}}))
			dial := func(port uint16, o sock.Options) (near, far *net.TCPConn) {
				t.Helper()
				near, err := sock.Dial(t.Context(), ns, netip.AddrPort{}, netip.AddrPortFrom(addr, port), o)
				must(t, err)
				far, err = l.AcceptTCP()
				must(t, err)
				t.Cleanup(func() { near.Close(); far.Close() })
				return near, far
			}
			plain, plainFar := dial(8000, sock.Options{Mark: 7})
			sent, _ := dial(80, sock.Options{})
			all, err := tcp.Conns(ns)
			must(t, err)
			flows, err := tcp.FlowsOf(ns)
			must(t, err)
			find := func(c *net.TCPConn) tcp.Conn {
				t.Helper()
				for _, k := range all {
					if k.Local == c.LocalAddr().(*net.TCPAddr).AddrPort() && k.State == tcp.Established {
						return k
					}
				}
				t.Fatalf("%v is not in %v", c.LocalAddr(), all)
				return tcp.Conn{}
			}
			p, s := find(plain), find(sent)
			if p.Remote.Port() != 8000 || p.Mark != 7 || flows.Opened(p).Port != 0 {
				t.Errorf("plain connection: %+v, %+v", p, flows.Opened(p))
			}
			if s.Remote.Port() != 80 || s.Mark != 0 || flows.Opened(s).Port != 8000 {
				t.Errorf("redirected connection: %+v, %+v", s, flows.Opened(s))
			}
			if n := len(all); n != 5 { // two ends of two, and who listens
				t.Errorf("%d sockets: %v", n, all)
			}
			must(t, tcp.End(ns, p))
			must(t, tcp.End(ns, p)) // it is gone
			for _, c := range []*net.TCPConn{plain, plainFar} {
				must(t, c.SetReadDeadline(time.Now().Add(5*time.Second)))
				if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNABORTED) && !errors.Is(err, unix.ECONNRESET) {
					t.Errorf("an ended connection: %v", err)
				}
			}
			must(t, tcp.Forget(ns, func(_, to netip.AddrPort, _ tcp.Flow) bool { return to.Port() == 80 }))
			if flows, err = tcp.FlowsOf(ns); err != nil || flows.Opened(s).Port != 0 {
				t.Errorf("a forgotten connection: %+v, %v", flows.Opened(s), err)
			}
		})
	}
}
