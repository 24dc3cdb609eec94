package hbone_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"

	"github.com/ambit-mesh/ambit/hbone"
)

func TestTunnelCarriesHeadersIdentityAndBytes(t *testing.T) {
	m := onLoopback(t, func(ctx context.Context, tun hbone.Tunnel) {
		if tun.Peer() != id("a") || tun.Authority() != "10.0.0.9:80" || tun.Header().Get("Baggage") != "k8s.cluster.name=c" {
			tun.Refuse(http.StatusTeapot, "unexpected request")
			return
		}
		c, err := tun.Accept(http.Header{"Baggage": {"k8s.namespace.name=b"}})
		if err != nil {
			t.Errorf("accept: %v", err)
			return
		}
		defer c.Close()
		io.Copy(c, c)
	})
	s := m.dial(t, "10.0.0.9:80", http.Header{"Baggage": {"k8s.cluster.name=c"}})
	if s.Peer() != id("b") || s.Header().Get("Baggage") != "k8s.namespace.name=b" {
		t.Errorf("peer %v, header %v", s.Peer(), s.Header())
	}
	sent, want := random(3<<20, 1)
	go func() { s.Write(sent); s.CloseWrite() }()
	checkSum(t, s, want)
	s.Close()
}

func TestRefusalIsAStatus(t *testing.T) {
	m := onLoopback(t, func(_ context.Context, tun hbone.Tunnel) { tun.Refuse(401, "policy") })
	_, err := m.dialer.Dial(t.Context(), m.hop, "10.0.0.9:80", nil)
	e, ok := errors.AsType[*hbone.StatusError](err)
	if !ok || e.Code != 401 || e.Error() != "http status: 401 Unauthorized" {
		t.Errorf("dial: %v", err)
	}
}
