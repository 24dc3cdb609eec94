package network_test

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/testkit/netnstest"
	"github.com/ambit-mesh/ambit/local/internal/network"
	"github.com/ambit-mesh/ambit/local/internal/network/wire"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// TestCaptureSeesEachSegmentOnce sends a request from node to node, in each family, and reads it off the bridge.
func TestCaptureSeesEachSegmentOnce(t *testing.T) {
	netnstest.Need(t)
	w, err := network.Build(network.Config{Nodes: []string{"n1", "n2"}, Family: network.Dual})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	frames, err := network.Capture(ctx, w)
	if err != nil {
		t.Fatal(err)
	}
	n1, _ := w.Node("n1")
	n2, _ := w.Node("n2")
	for i, to := range n2.Addrs {
		request := "GET /" + to.String() + " HTTP/1.1\r\n\r\n"
		l, err := n2.Listen(ctx, "tcp", netip.AddrPortFrom(to, 80).String())
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			if c, err := l.Accept(); err == nil {
				_, _ = c.Write([]byte("end")) // what is read off the bridge last
				_ = c.Close()
			}
			_ = l.Close()
		}()
		c, err := n1.Dial(ctx, "tcp", netip.AddrPortFrom(to, 80).String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte(request)); err != nil {
			t.Fatal(err)
		}
		from := netip.MustParseAddrPort(c.LocalAddr().(*net.TCPAddr).AddrPort().String())
		requests, answers := 0, 0
		for requests == 0 || answers == 0 {
			s, ok := <-frames
			if !ok {
				t.Fatalf("the capture ended with %d requests and %d answers", requests, answers)
			}
			switch {
			case s.From == from && string(s.Payload) == request && wire.Classify(s.Payload) == wire.HTTP:
				requests++
			case s.To == from && string(s.Payload) == "end":
				answers++
			}
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if requests != 1 || answers != 1 || from.Addr() != n1.Addrs[i] {
			t.Errorf("%d requests and %d answers from %v, want one of each from %v", requests, answers, from, n1.Addrs[i])
		}
	}
	cancel()
	for range frames { // closed, or the test hangs
	}
}
