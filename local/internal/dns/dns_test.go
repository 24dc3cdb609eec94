package dns

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

const objects = `
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {clusterIP: 10.96.0.7, clusterIPs: [10.96.0.7, "fd00::7"], ports: [{name: http, port: 80, protocol: TCP}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: default}
spec: {clusterIP: None, clusterIPs: [None], ports: [{name: sql, port: 5432, protocol: TCP}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-1, namespace: default, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
ports: [{name: sql, port: 15432, protocol: TCP}]
endpoints:
- {addresses: [10.244.1.5], hostname: db-0, conditions: {ready: true}}
- {addresses: [10.244.2.6], conditions: {ready: true}}
- {addresses: [10.244.2.7], conditions: {ready: false}}
`

// serve starts a server with the objects on loopback.
func serve(t *testing.T, forward func(context.Context, *dns.Msg) (*dns.Msg, error)) (udp, tcp string) {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := New(Config{UDP: pc, TCP: l, Forward: forward, Log: slog.New(slog.DiscardHandler)})
	all, err := kinds.Decode("objects.yaml", []byte(objects))
	if err != nil {
		t.Fatal(err)
	}
	var services []*corev1.Service
	var eps []*discoveryv1.EndpointSlice
	for _, o := range all {
		switch o := o.Object.(type) {
		case *corev1.Service:
			services = append(services, o)
		case *discoveryv1.EndpointSlice:
			eps = append(eps, o)
		}
	}
	s.Set(services, eps)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return pc.LocalAddr().String(), l.Addr().String()
}

func ask(t *testing.T, network, server, name string, qtype uint16) string {
	t.Helper()
	c := &dns.Client{Net: network}
	r, _, err := c.Exchange(new(dns.Msg).SetQuestion(name, qtype), server)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, rr := range r.Answer {
		got = append(got, strings.Join(strings.Fields(rr.String())[3:], " "))
	}
	slices.Sort(got)
	return dns.RcodeToString[r.Rcode] + " " + strings.Join(got, ", ")
}

func TestAnswers(t *testing.T) {
	udp, tcp := serve(t, nil)
	for _, tc := range []struct {
		name  string
		qtype uint16
		want  string
	}{
		{"web.default.svc.cluster.local.", dns.TypeA, "NOERROR A 10.96.0.7"},
		{"WEB.Default.svc.cluster.local.", dns.TypeAAAA, "NOERROR AAAA fd00::7"},
		{"db.default.svc.cluster.local.", dns.TypeA, "NOERROR A 10.244.1.5, A 10.244.2.6"},
		{"db.default.svc.cluster.local.", dns.TypeAAAA, "NOERROR "}, // known, but not of that family
		{"db-0.db.default.svc.cluster.local.", dns.TypeA, "NOERROR A 10.244.1.5"},
		{"10-244-2-6.db.default.svc.cluster.local.", dns.TypeA, "NOERROR A 10.244.2.6"},
		{"_http._tcp.web.default.svc.cluster.local.", dns.TypeSRV, "NOERROR SRV 0 100 80 web.default.svc.cluster.local."},
		{"7.0.96.10.in-addr.arpa.", dns.TypePTR, "NOERROR PTR web.default.svc.cluster.local."},
		{"default.svc.cluster.local.", dns.TypeA, "NOERROR "},
		{"none.default.svc.cluster.local.", dns.TypeA, "NXDOMAIN "},
		{"web.default.svc.cluster.local.default.svc.cluster.local.", dns.TypeA, "NXDOMAIN "},
		{"example.com.", dns.TypeA, "NXDOMAIN "},
		{"web.default.svc.cluster.local.", dns.TypeTXT, "NOERROR "},
	} {
		for network, server := range map[string]string{"udp": udp, "tcp": tcp} {
			if got := ask(t, network, server, tc.name, tc.qtype); got != tc.want {
				t.Errorf("%s %s %s: %q, want %q", network, tc.name, dns.TypeToString[tc.qtype], got, tc.want)
			}
		}
	}
}

func TestForwardsNamesOutside(t *testing.T) {
	var mu sync.Mutex
	var asked []string
	udp, _ := serve(t, func(_ context.Context, q *dns.Msg) (*dns.Msg, error) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, q.Question[0].Name)
		if q.Question[0].Name == "down.example." {
			return nil, errors.New("down")
		}
		r := new(dns.Msg).SetReply(q)
		r.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}, A: net.IPv4(192, 0, 2, 1)}}
		return r, nil
	})
	if got := ask(t, "udp", udp, "up.example.", dns.TypeA); got != "NOERROR A 192.0.2.1" {
		t.Error(got)
	}
	if got := ask(t, "udp", udp, "down.example.", dns.TypeA); got != "SERVFAIL " {
		t.Error(got)
	}
	ask(t, "udp", udp, "word.", dns.TypeA)
	ask(t, "udp", udp, "x.cluster.local.", dns.TypeA)
	mu.Lock()
	defer mu.Unlock()
	if want := []string{"up.example.", "down.example."}; !slices.Equal(asked, want) {
		t.Errorf("asked outside: %v, want %v", asked, want)
	}
}
