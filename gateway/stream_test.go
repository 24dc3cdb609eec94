package gateway

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/ambit-mesh/ambit/api/l7"
)

func streamTo(name string, matches ...*l7.StreamMatch) *l7.StreamRule {
	return &l7.StreamRule{Matches: matches, Destinations: []*l7.Destination{{Backend: name, Weight: 1}}, Source: "VirtualService/default/" + name}
}

func sni(names ...string) *l7.StreamMatch { return &l7.StreamMatch{SniHosts: names} }

// server accepts connections and gives each to serve.
func server(t *testing.T, serve func(*net.TCPConn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				serve(c.(*net.TCPConn))
				c.Close()
			})
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return l.Addr().String()
}

func dialled(t *testing.T, at string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c.(*net.TCPConn)
}

// gathered are the series of a family.
func gathered(t *testing.T, reg *prometheus.Registry, name string) []*dto.Metric {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()
		}
	}
	return nil
}

func TestTCPIsCarriedToItsEnd(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	at := server(t, func(c *net.TCPConn) {
		n, _ := io.Copy(io.Discard, c) // the client ends first, and still hears everything
		fmt.Fprintf(c, "%d:", n)
		c.Write(big) //nolint:errcheck // seen by the client
	})
	cut := server(t, func(c *net.TCPConn) {
		io.WriteString(c, "part") //nolint:errcheck // seen by the client
		c.Read(make([]byte, 1))   //nolint:errcheck // until the client has it
		c.SetLinger(0)
	})
	reg := prometheus.NewRegistry()
	b := start(t, func(c *Config) { c.Metrics = reg })
	l, broken, none, dead := listener(9000, "*"), listener(9001, "*"), listener(9002, "*"), listener(9003, "*")
	for x, r := range map[*l7.Listener]*l7.StreamRule{l: streamTo("web"), broken: streamTo("cut"), dead: streamTo("dead"), none: nil} {
		x.Protocol, x.Routes = l7.Protocol_TCP, ""
		if r != nil {
			x.Streams = []*l7.StreamRule{{Matches: []*l7.StreamMatch{{DestinationSubnets: []string{"10.0.0.0/8"}}}, Destinations: []*l7.Destination{{Backend: "never", Weight: 1}}}, r}
		}
	}
	b.apply(backend("web", at), backend("cut", cut), backend("dead", "127.0.0.1:1"), l, broken, none, dead)
	c := dialled(t, b.at(9000))
	c.Write(big) //nolint:errcheck // counted by the backend
	c.CloseWrite()
	got, err := io.ReadAll(c)
	if want := append(fmt.Appendf(nil, "%d:", len(big)), big...); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v; want %d", len(got), err, len(want))
	}
	b.log.find(t, fmt.Sprintf(`] "- - -" 0 - - - "-" %d %d `, len(big), len(big)+8), "outbound|80||web.default.svc.cluster.local")

	c = dialled(t, b.at(9001))
	if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, "x") //nolint:errcheck // seen below
	if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the backend broke the connection, the client sees %v", err)
	}
	b.log.find(t, `"- - -" 0 `, "connection_reset_by_peer", "cut.default")
	ask := func(port uint16) ([]byte, error) {
		c, err := net.Dial("tcp", b.at(port)) // the end may come before this returns
		if err != nil {
			return nil, err
		}
		defer c.Close()
		return io.ReadAll(c)
	}
	if got, err := ask(9002); len(got) > 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("without a rule: %q, %v", got, err)
	}
	b.log.find(t, `"- - -" 0 NR`)
	if _, err := ask(9003); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("no backend, the client sees %v", err)
	}
	b.log.find(t, `"- - -" 0 UF - - "`, "connection refused")
	for name, want := range map[string]int{"istio_tcp_connections_opened_total": 2, "istio_tcp_connections_closed_total": 4} {
		if n := len(gathered(t, reg, name)); n != want {
			t.Errorf("%s: %d series, want %d", name, n, want)
		}
	}
}

func TestNamesInTLSChooseWhoEndsIt(t *testing.T) {
	a := newAuthority(t)
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	inner := func(name string) (string, *httptest.Server) {
		chain, key := a.leaf(40, name)
		pair, err := tls.X509KeyPair(chain, key)
		if err != nil {
			t.Fatal(err)
		}
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, name, " ", r.TLS.ServerName) }))
		s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
		s.StartTLS()
		t.Cleanup(s.Close)
		return s.Listener.Addr().String(), s
	}
	one, _ := inner("one.pass.test")
	wild, _ := inner("any.pass.test")
	plain, _ := web(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "plain") })
	echo := server(t, func(c *net.TCPConn) { io.Copy(c, c); c.CloseWrite() }) //nolint:errcheck // seen by the client
	b := start(t, nil)
	pass, ended := listener(443, "*.pass.test"), https("db", "db.test", "db")
	pass.Name, pass.Protocol = "pass", l7.Protocol_TLS_PASSTHROUGH
	pass.Streams = []*l7.StreamRule{streamTo("one", sni("one.pass.test")), streamTo("wild", sni("*.pass.test"))}
	ended.Port, ended.Protocol, ended.Streams = 443, l7.Protocol_TLS_TERMINATE, []*l7.StreamRule{streamTo("echo")}
	shop := https("shop", "shop.test", "shop")
	shop.Port = 443
	b.apply(backend("one", one), backend("wild", wild), backend("web", plain), backend("echo", echo), a.secret("shop", 1, "shop.test"), a.secret("db", 2, "db.test"),
		pass, ended, shop, inSet(route("shop.test", to("web")), "https.shop"))
	gw := b.at(443)
	for name, want := range map[string]string{
		"one.pass.test": "one.pass.test one.pass.test", "any.pass.test": "any.pass.test any.pass.test", "shop.test": "plain",
	} {
		req, _ := http.NewRequestWithContext(t.Context(), "GET", "https://"+gw+"/", nil)
		req.Host = name
		resp, err := a.browser(gw, name).Do(req)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(body) != want {
			t.Errorf("%s: %q, want %q", name, body, want)
		}
	}
	b.log.find(t, `"- - -" 0 - `, "one.default", " one.pass.test ") // however the client's TLS ended
	c := tls.Client(dialled(t, gw), &tls.Config{ServerName: "db.test", RootCAs: roots, NextProtos: []string{"h2"}})
	io.WriteString(c, "select") //nolint:errcheck // seen below
	c.CloseWrite()              //nolint:errcheck // as above
	if got, err := io.ReadAll(c); string(got) != "select" || err != nil || c.ConnectionState().NegotiatedProtocol != "" {
		t.Errorf("ended TLS: %q, %v, protocol %q", got, err, c.ConnectionState().NegotiatedProtocol)
	}
	// RT-12: nobody's name gets nobody's certificate.
	for _, name := range []string{"pass.test", "other.test", ""} {
		c := tls.Client(dialled(t, gw), &tls.Config{ServerName: name, InsecureSkipVerify: true})
		if err := c.Handshake(); err == nil {
			t.Errorf("a handshake for %q succeeded", name)
		}
	}
	// What is no TLS at all gets no answer that somebody could mistake for one.
	x := dialled(t, gw)
	io.WriteString(x, "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n") //nolint:errcheck // seen below
	if got, _ := io.ReadAll(x); strings.Contains(string(got), "200") {
		t.Errorf("plain text on a secure port: %q", got)
	}
}
