package dns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/lifecycle"
	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/linux/sock"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/telemetry"
)

// Config is what the servers of a node share.
type Config struct {
	Names Names
	// Domain of the cluster. Default mesh.ClusterDomain.
	Domain string
	// Resolvers are asked, in this order, for what the mesh does not know.
	Resolvers []netip.AddrPort
	// Patience is how long a client waits at most for them, and OneTry how long for one. Defaults 4.5s, 2s.
	Patience, OneTry time.Duration
	// Source tells the canonical service and revision of a pod, for the metrics. Nil tells none.
	Source  func(namespace, name string) (service, revision string)
	Metrics *telemetry.DNS
	Log     *slog.Logger
}

func (c Config) defaults() Config {
	c.Domain = cmp.Or(c.Domain, mesh.ClusterDomain)
	c.Patience, c.OneTry = cmp.Or(c.Patience, patience), cmp.Or(c.OneTry, oneTry)
	if c.Source == nil {
		c.Source = func(string, string) (string, string) { return "", "" }
	}
	return c
}

// Pod is the pod to serve. NS must stay open until Run has returned.
type Pod struct {
	Name, Namespace string
	NS              *netns.Namespace
}

// Server serves one pod on its loopback, where its own queries are redirected to and nobody else's come from.
type Server struct {
	conf      Config
	pod       Pod
	client    client
	resolver  resolver
	packets   []*net.UDPConn
	listeners []*net.TCPListener
	forwards  chan struct{} // slots of queries that wait for a resolver
	conns     chan struct{} // slots of connections
}

const (
	maxForwards = 256 // of a pod at once; each holds a socket
	maxConns    = 64
	// idle is how long a connection may be silent; resolvers keep none open for later.
	idle = 10 * time.Second
	// lastQueries is how long the sockets are still read at the end, for what the kernel has taken in.
	lastQueries = 20 * time.Millisecond
)

// Open opens the pod's sockets; Run serves them.
func Open(c Config, pod Pod) (*Server, error) {
	c = c.defaults()
	s := &Server{
		conf: c, pod: pod, client: client{Namespace: pod.Namespace, Domain: c.Domain},
		resolver: resolver{ns: pod.NS, servers: c.Resolvers, patience: c.Patience, oneTry: c.OneTry},
		forwards: make(chan struct{}, maxForwards), conns: make(chan struct{}, maxConns),
	}
	s.conf.Log = c.Log.With("src.workload", pod.Name, "src.namespace", pod.Namespace)
	for _, host := range []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()} {
		err := s.listen(netip.AddrPortFrom(host, mesh.PortDNS))
		if host.Is6() && (errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EAFNOSUPPORT)) {
			continue // the pod has no IPv6
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open the DNS proxy: %w", err), s.Close())
		}
	}
	return s, nil
}

func (s *Server) listen(at netip.AddrPort) error {
	// Ports are shared, so that the next proxy opens them before this one stops.
	o := sock.Options{Mark: mesh.Mark, ReusePort: true, V6Only: true}
	u, err := sock.ListenUDP(s.pod.NS, at, o)
	if err != nil {
		return err
	}
	s.packets = append(s.packets, u)
	t, err := sock.Listen(s.pod.NS, at, o)
	if err != nil {
		return err
	}
	s.listeners = append(s.listeners, t)
	return nil
}

// Close closes the sockets of a server that does not run.
func (s *Server) Close() error {
	var errs []error
	for _, u := range s.packets {
		errs = append(errs, u.Close())
	}
	for _, t := range s.listeners {
		if err := t.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	g := lifecycle.NewGroup(ctx)
	for _, u := range s.packets {
		g.Go("udp", func(ctx context.Context) error { return s.serveUDP(ctx, u) })
	}
	for _, t := range s.listeners {
		g.Go("tcp", func(ctx context.Context) error { return s.serveTCP(ctx, t) })
	}
	return errors.Join(g.Wait(), s.Close())
}

// serveUDP answers what we know at once, and lets the rest wait for a resolver beside it.
func (s *Server) serveUDP(ctx context.Context, u *net.UDPConn) error {
	defer context.AfterFunc(ctx, func() { _ = u.SetReadDeadline(time.Now().Add(lastQueries)) })()
	var wg sync.WaitGroup
	defer wg.Wait()
	b := make([]byte, mostSize)
	for {
		n, from, err := u.ReadFromUDPAddrPort(b)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("receive a query: %w", err)
			}
			s.conf.Log.Debug("query not received", "error", err)
			continue
		}
		q, err := parse(b[:n])
		if err != nil {
			s.conf.Log.Debug("packet is no query", "error", err)
			continue
		}
		answer := func(out []byte, err error) {
			if err == nil {
				_, err = u.WriteToUDPAddrPort(out, from)
			}
			if err != nil {
				s.conf.Log.Debug("query not answered", "name", q.question.Name.String(), "error", err)
			}
		}
		if f, ok := s.know(&q, udp); ok {
			answer(q.answer(f, udp))
			continue
		}
		select {
		case s.forwards <- struct{}{}:
		default:
			s.tell(&q, "forwarding failed: too many queries wait already", 0)
			answer(q.failed(dnsmessage.RCodeServerFailure))
			continue
		}
		q.raw = append([]byte(nil), q.raw...) // b is read into again
		wg.Go(func() {
			defer func() { <-s.forwards }()
			answer(s.pass(context.WithoutCancel(ctx), q, udp)) // it takes Patience at most
		})
	}
}

// know counts a query and tells what the mesh knows of it.
func (s *Server) know(q *query, via protocol) (found, bool) {
	s.conf.Metrics.Asked(s.label(q, via))
	if !q.ours {
		return found{}, false
	}
	f, ok := lookup(s.conf.Names, s.client, q.question.Name.String())
	if ok {
		s.tell(q, "success", len(f.Addrs))
	}
	return f, ok
}

func (s *Server) label(q *query, via protocol) telemetry.Question {
	service, revision := s.conf.Source(s.pod.Namespace, s.pod.Name)
	return telemetry.Question{Type: typeName(q.question.Type), Protocol: string(via), Service: service, Revision: revision}
}

// tell writes the one line of a query.
func (s *Server) tell(q *query, result string, endpoints int) {
	if s.conf.Log.Enabled(context.Background(), slog.LevelDebug) {
		s.conf.Log.Debug("query", "query", strings.ToUpper(typeName(q.question.Type)), "domain", q.question.Name.String(), "result", result, "endpoints", endpoints)
	}
}

// pass gets the answer to a query from outside; without one, it says so.
func (s *Server) pass(ctx context.Context, q query, via protocol) ([]byte, error) {
	began := time.Now()
	out, err := s.resolver.ask(ctx, q, via)
	s.conf.Metrics.Forwarded(s.label(&q, via), time.Since(began), err != nil)
	if err == nil {
		s.tell(&q, "forwarded", 0)
		return out, nil
	}
	s.tell(&q, "forwarding failed: "+err.Error(), 0)
	return q.failed(dnsmessage.RCodeServerFailure)
}

func (s *Server) serveTCP(ctx context.Context, l *net.TCPListener) error {
	defer context.AfterFunc(ctx, func() { _ = l.Close() })() // Run reports what closing says
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := l.AcceptTCP()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("accept: %w", err)
			}
			s.conf.Log.Warn("connection not accepted", "error", err)
			select {
			case <-time.After(50 * time.Millisecond): // descriptors are short: others must end first
			case <-ctx.Done():
			}
			continue
		}
		select {
		case s.conns <- struct{}{}:
		default:
			_ = c.Close() // too many: the client asks again
			continue
		}
		wg.Go(func() {
			defer func() { <-s.conns }()
			defer c.Close()
			defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
			if err := s.serveConn(ctx, c); err != nil {
				s.conf.Log.Debug("connection ended", "error", err)
			}
		})
	}
}

// serveConn answers the queries of a connection, one after the other.
func (s *Server) serveConn(ctx context.Context, c *net.TCPConn) error {
	if to, err := sock.OriginalDst(c); err == nil && to.Port() == mesh.PortDNS {
		return errors.New("dialled the proxy itself, not a resolver")
	}
	for {
		if err := c.SetDeadline(time.Now().Add(idle)); err != nil || ctx.Err() != nil {
			return err
		}
		raw, err := readTCP(c)
		if err != nil {
			return err
		}
		q, err := parse(raw)
		if err != nil {
			return err
		}
		var out []byte
		if f, ok := s.know(&q, tcp); ok {
			out, err = q.answer(f, tcp)
		} else {
			out, err = s.pass(ctx, q, tcp)
		}
		if err == nil {
			err = writeTCP(c, out)
		}
		if err != nil {
			return err
		}
	}
}

// typeName is a type as a label of a metric; rare ones share one.
func typeName(t dnsmessage.Type) string {
	switch t {
	case dnsmessage.TypeA, dnsmessage.TypeAAAA, dnsmessage.TypeCNAME, dnsmessage.TypeMX, dnsmessage.TypeNS, dnsmessage.TypePTR, dnsmessage.TypeSOA,
		dnsmessage.TypeSRV, dnsmessage.TypeTXT, dnsmessage.TypeHINFO:
		return strings.ToLower(t.String()[len("Type"):])
	case 65:
		return "https"
	}
	return "other"
}
