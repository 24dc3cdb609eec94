package dns

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// ttl of answers in seconds: pods come and go quickly on a local cluster.
const ttl = 5

// Config of a Server.
type Config struct {
	// Domain of the cluster. Default cluster.local.
	Domain string
	// UDP and TCP are what to serve on, opened by the caller in the namespace they belong to.
	UDP net.PacketConn
	TCP net.Listener
	// Forward asks somebody else about names outside the cluster; nil answers that there are none.
	Forward func(context.Context, *dns.Msg) (*dns.Msg, error)
	Log     *slog.Logger
}

// Server is the cluster's DNS. It answers nothing until Set was called once.
type Server struct {
	conf Config
	zone atomic.Pointer[zone]
}

// New makes a server.
func New(c Config) *Server {
	if c.Domain == "" {
		c.Domain = "cluster.local"
	}
	s := &Server{conf: c}
	s.Set(nil, nil)
	return s
}

// Set replaces every name by those of the given objects.
func (s *Server) Set(services []*corev1.Service, slices []*discoveryv1.EndpointSlice) {
	s.zone.Store(newZone(s.conf.Domain, services, slices))
}

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	h := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) { s.serve(ctx, w, q) })
	servers := []*dns.Server{
		{PacketConn: s.conf.UDP, Handler: h},
		{Listener: s.conf.TCP, Handler: h, ReadTimeout: 5 * time.Second},
	}
	failed := make(chan error, len(servers))
	for _, d := range servers {
		go func() { failed <- d.ActivateAndServe() }()
	}
	var first error
	ended := 0
	select {
	case <-ctx.Done():
	case first = <-failed:
		ended++
	}
	s.conf.UDP.Close()
	s.conf.TCP.Close()
	for ; ended < len(servers); ended++ {
		_ = <-failed // closed sockets end both
	}
	if ctx.Err() == nil && first != nil {
		return fmt.Errorf("dns: %w", first)
	}
	return nil
}

func (s *Server) serve(ctx context.Context, w dns.ResponseWriter, q *dns.Msg) {
	r := s.Answer(ctx, q)
	if _, udp := w.LocalAddr().(*net.UDPAddr); udp {
		size := dns.MinMsgSize
		if o := q.IsEdns0(); o != nil {
			size = max(size, int(o.UDPSize()))
		}
		r.Truncate(size)
	}
	if err := w.WriteMsg(r); err != nil {
		s.conf.Log.Debug("dns answer not sent", "to", w.RemoteAddr(), "error", err)
	}
}

// Answer gives the reply to a question.
func (s *Server) Answer(ctx context.Context, q *dns.Msg) *dns.Msg {
	r := new(dns.Msg).SetReply(q)
	r.RecursionAvailable = true
	if len(q.Question) != 1 || q.Question[0].Qclass != dns.ClassINET || q.Opcode != dns.OpcodeQuery {
		return r.SetRcode(q, dns.RcodeNotImplemented)
	}
	z, question := s.zone.Load(), q.Question[0]
	low := dns.CanonicalName(question.Name)
	records, extra, known := z.answer(question.Name, question.Qtype)
	switch {
	case len(records) > 0:
		rand.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
		r.Authoritative, r.Answer, r.Extra = true, records, extra
	case dns.IsSubDomain(z.domain, low):
		r.Authoritative, r.Ns = true, []dns.RR{z.soa()}
		if !known {
			r.Rcode = dns.RcodeNameError
		}
	default:
		return s.forward(ctx, q, r)
	}
	return r
}

// forwardTimeout keeps a machine without a resolver from making pods wait.
const forwardTimeout = 2 * time.Second

func (s *Server) forward(ctx context.Context, q, r *dns.Msg) *dns.Msg {
	if s.conf.Forward == nil || strings.Count(q.Question[0].Name, ".") < 2 { // a single word is no name of the outside
		return r.SetRcode(q, dns.RcodeNameError)
	}
	ctx, cancel := context.WithTimeout(ctx, forwardTimeout)
	defer cancel()
	out, err := s.conf.Forward(ctx, q)
	if err != nil {
		s.conf.Log.Debug("dns question not answered outside", "name", q.Question[0].Name, "error", err)
		return r.SetRcode(q, dns.RcodeServerFailure)
	}
	out.Id = q.Id
	return out
}
