package hbone_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/url"
	"testing"

	"golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/hbone"
	"github.com/ambit-mesh/ambit/identity/mtls"
	"github.com/ambit-mesh/ambit/internal/testkit/fakeca"
)

func TestAnotherClientSpeaksToUs(t *testing.T) {
	m := onLoopback(t, func(ctx context.Context, tun hbone.Tunnel) {
		if tun.Authority() == "10.6.6.6:80" {
			tun.Refuse(401, "policy")
			return
		}
		echo(ctx, tun)
	})
	tr := &http2.Transport{DialTLSContext: func(ctx context.Context, network, _ string, _ *tls.Config) (net.Conn, error) {
		d := tls.Dialer{Config: mtls.Client(id("a"), m.ca, m.ca, mtls.OneOf(id("b")))}
		return d.DialContext(ctx, network, m.addr)
	}}
	defer tr.CloseIdleConnections()
	connect := func(to string, body io.Reader) *http.Response {
		req := &http.Request{Method: "CONNECT", URL: &url.URL{Scheme: "https", Host: to}, Host: to, Header: http.Header{}, Body: io.NopCloser(body)}
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatalf("CONNECT %s: %v", to, err)
		}
		return resp
	}
	r, w := io.Pipe()
	resp := connect("10.0.0.9:80", r)
	sent, want := random(5<<20, 9)
	go func() { w.Write(sent); w.Close() }()
	checkSum(t, resp.Body, want)
	resp.Body.Close()
	r, w = io.Pipe()
	resp = connect("10.6.6.6:80", r)
	if resp.StatusCode != 401 {
		t.Errorf("refused tunnel: %s", resp.Status)
	}
	w.Close()
	resp.Body.Close()
}

func TestWeSpeakToAnotherServer(t *testing.T) {
	ca := fakeca.New(t)
	l := listen(t)
	defer l.Close()
	var srv http2.Server
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != "CONNECT" || r.Host != "10.0.0.9:80" {
			w.WriteHeader(400)
			return
		}
		w.Header().Set("Baggage", "x=y")
		w.WriteHeader(200)
		http.NewResponseController(w).Flush()
		buf := make([]byte, 64<<10)
		for {
			n, err := r.Body.Read(buf)
			if n > 0 {
				w.Write(buf[:n])
				http.NewResponseController(w).Flush()
			}
			if err != nil {
				return
			}
		}
	})
	served := make(chan struct{})
	go func() {
		defer close(served)
		c, err := l.Accept()
		if err != nil {
			return
		}
		tc := tls.Server(c, serverTLS(ca))
		if err := tc.HandshakeContext(context.Background()); err != nil {
			t.Errorf("handshake: %v", err)
			return
		}
		srv.ServeConn(tc, &http2.ServeConnOpts{Handler: handler})
	}()
	d := &hbone.Dialer{Source: ca, Roots: ca}
	h := hop(l.Addr().String())
	s, err := d.Dial(t.Context(), h, "10.0.0.9:80", nil)
	if err != nil {
		t.Fatal(err)
	}
	if s.Header().Get("Baggage") != "x=y" {
		t.Errorf("header %v", s.Header())
	}
	sent, want := random(5<<20, 10)
	go func() { s.Write(sent); s.CloseWrite() }()
	checkSum(t, s, want)
	s.Close()
	if _, err := d.Dial(t.Context(), h, "10.0.0.9:81", nil); err == nil || err.Error() != "tunnel to 10.0.0.9:81: http status: 400 Bad Request" {
		t.Errorf("refused: %v", err)
	}
	d.Close()
	<-served
}
