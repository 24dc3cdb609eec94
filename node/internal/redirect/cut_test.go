package redirect_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/linux/link"
	"github.com/ambit-mesh/ambit/linux/sock"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/node/internal/capture"
	"github.com/ambit-mesh/ambit/node/internal/redirect"
)

// goes says how a connection is: "on", "ended" or an error.
func goes(t *testing.T, near, far *net.TCPConn) string {
	t.Helper()
	if _, err := near.Write([]byte("x")); err != nil {
		return "ended"
	}
	must(t, far.SetReadDeadline(time.Now().Add(300*time.Millisecond)))
	b := make([]byte, 1)
	switch _, err := far.Read(b); {
	case err == nil:
		return "on"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "hangs"
	case errors.Is(err, unix.ECONNABORTED), errors.Is(err, unix.ECONNRESET):
		return "ended"
	default:
		return err.Error()
	}
}

// A pod that joins: what it had before goes past the proxy, and ends at both ends; nothing else does. One that leaves: what the
// proxy has in hand ends, at both ends.
func TestConnectionsOfAPodThatJoinsAndLeaves(t *testing.T) {
	families(t, func(t *testing.T, v6 bool) {
		for name, bypass := range map[string]bool{"captured": false, "inbound not captured": true} {
			t.Run(name, func(t *testing.T) {
				n := newNetwork(t, v6, capture.Pod{})
				must(t, redirect.Remove(n.pod)) // not captured yet
				must(t, link.AddAddr(nil, "lo", netip.PrefixFrom(n.nodeIP, n.nodeIP.BitLen())))
				arrivals := make(chan arrival, 1)
				listen(t, n.pod, arrivals, "application", anyAddr(v6, 80), sock.Options{})
				listen(t, n.other, arrivals, "other", anyAddr(v6, 80), sock.Options{})
				listen(t, n.node, arrivals, "node", anyAddr(v6, 80), sock.Options{})
				for port, name := range map[uint16]string{mesh.PortOutbound: "15001", mesh.PortPlaintext: "15006"} {
					listen(t, n.pod, arrivals, name, anyAddr(v6, port), sock.Options{Transparent: true})
				}
				type pair struct{ near, far *net.TCPConn }
				dial := func(at string, from, to netip.Addr, o sock.Options) pair {
					t.Helper()
					ns, source := n.pod, netip.AddrPort{}
					switch {
					case o.Transparent:
						source = netip.AddrPortFrom(from, 0)
					case from == n.otherIP:
						ns = n.other
					case from == n.nodeIP:
						ns = n.node
					}
					c, err := sock.Dial(t.Context(), ns, source, netip.AddrPortFrom(to, 80), o)
					must(t, err)
					a := <-arrivals
					if a.at != at {
						t.Fatalf("arrived at %s, want %s", a.at, at)
					}
					t.Cleanup(func() { c.Close(); a.conn.Close() })
					return pair{c, a.conn}
				}
				check := func(when string, want map[string]string, have map[string]pair) {
					t.Helper()
					for name, p := range have {
						if got := goes(t, p.near, p.far); got != want[name] {
							t.Errorf("%s: %s: %s, want %s", when, name, got, want[name])
						}
						if want[name] == "ended" {
							if got := goes(t, p.far, p.near); got != "ended" {
								t.Errorf("%s: %s: its other end: %s", when, name, got)
							}
						}
					}
				}
				old := map[string]pair{
					"outbound": dial("other", n.podIP, n.otherIP, sock.Options{}), "inbound": dial("application", n.otherIP, n.podIP, sock.Options{}),
					"to itself": dial("application", n.podIP, n.podIP, sock.Options{}), "of the node": dial("application", n.nodeIP, n.podIP, sock.Options{}),
				}
				must(t, redirect.ForgetOld(n.pod))
				must(t, redirect.Apply(n.pod, capture.For(capture.Pod{V6: true, BypassInbound: bypass})))
				// What is made now goes to the proxy, and out of its hands to the application.
				now := map[string]pair{
					"outbound captured": dial("15001", n.podIP, n.otherIP, sock.Options{}),
					"the proxy's own":   dial("other", n.podIP, n.otherIP, sock.Options{Mark: mesh.Mark}),
					"delivered":         dial("application", n.otherIP, n.podIP, sock.Options{Mark: mesh.Mark, Transparent: true}),
				}
				if !bypass {
					now["inbound captured"] = dial("15006", n.otherIP, n.podIP, sock.Options{})
				}
				check("not looked for yet", map[string]string{"outbound": "on", "inbound": "on", "to itself": "on", "of the node": "on"}, old)
				ended, err := redirect.CutPast(n.pod, !bypass)
				must(t, err)
				want := map[string]string{"outbound": "ended", "inbound": "ended", "to itself": "on", "of the node": "on"}
				if bypass {
					want["inbound"] = "on"
				}
				if len(ended) == 0 {
					t.Error("nothing was ended")
				}
				check("joined", want, old)
				check("joined", map[string]string{"outbound captured": "on", "inbound captured": "on", "the proxy's own": "on", "delivered": "on"}, now)

				_, err = redirect.CutCaptured(n.pod)
				must(t, err)
				check("leaves", map[string]string{"outbound captured": "ended", "inbound captured": "on", "the proxy's own": "on", "delivered": "ended"}, now)
				must(t, redirect.Remove(n.pod))
				must(t, redirect.ForgetCaptured(n.pod))
				must(t, link.DeleteAddr(nil, "lo", netip.PrefixFrom(n.nodeIP, n.nodeIP.BitLen())))
			})
		}
	})
}
