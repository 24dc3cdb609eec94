// Package zds tells node proxies which pods are theirs, and hands them the pods' network namespaces.
package zds

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ambit-mesh/ambit/api/zds"
	"github.com/ambit-mesh/ambit/linux/netns"
)

// Workload is a captured pod. Its namespace stays the server's until Del.
type Workload struct {
	UID, Name, Namespace, ServiceAccount string
	// NS is nil for a pod whose namespace the agent does not know, after a restart: a proxy that has the pod keeps it.
	NS *netns.Namespace
}

func (w Workload) close() {
	if w.NS != nil {
		w.NS.Close()
	}
}

// id is zero for a namespace that is not known.
func (w Workload) id() netns.ID {
	if w.NS == nil {
		return netns.ID{}
	}
	return w.NS.ID()
}

// ErrNoProxy means that no node proxy is connected.
var ErrNoProxy = errors.New("no ztunnel connection")

// Config of a Server.
type Config struct {
	// Socket is the path to listen at.
	Socket string
	// Trusted says why a process in a network namespace is not a node proxy, nil if it is: whoever is one is handed the
	// traffic of every pod. It may wait until ctx ends for what it does not know yet.
	Trusted func(ctx context.Context, peer *netns.Namespace) error
	// Changed is called when another proxy became the one that new pods go to: Add of every pod then brings it what it
	// lacks. It must not block.
	Changed func()
	Log     *slog.Logger
}

// Server is the agent's end. It remembers every workload, for proxies that connect later.
type Server struct {
	conf    Config
	serving atomic.Bool
	within  time.Duration

	mu        sync.Mutex // guards below; never held while a proxy is asked
	workloads map[string]Workload
	proxies   []*proxy         // oldest first; those that are still sent their snapshot too
	ready     int              // proxies that have their snapshot
	strangers map[netns.ID]int // connections that are not known to be a proxy's yet, by namespace
}

// New makes a server; Run serves.
func New(c Config) *Server {
	return &Server{conf: c, within: deadline, workloads: map[string]Workload{}, strangers: map[netns.ID]int{}}
}

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	if err := os.Remove(s.conf.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("socket for node proxies: %w", err)
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Net: "unixpacket", Name: s.conf.Socket})
	if err != nil {
		return fmt.Errorf("socket for node proxies: %w", err)
	}
	l.SetUnlinkOnClose(false) // the path may be the next agent's by then
	if err := os.Chmod(s.conf.Socket, 0o600); err != nil {
		return errors.Join(err, l.Close())
	}
	s.serving.Store(true)
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("socket for node proxies: %w", err)
		}
		wg.Go(func() {
			defer c.Close()
			defer context.AfterFunc(ctx, func() { _ = c.Close() })()
			if err := s.serve(ctx, c); err != nil && ctx.Err() == nil {
				s.conf.Log.Warn("connection of a node proxy ended", "error", err)
			}
		})
	}
}

// serve greets a proxy, sends it everything, and holds the connection until it breaks.
func (s *Server) serve(ctx context.Context, c *net.UnixConn) error {
	if err := s.admit(ctx, c); err != nil {
		return err
	}
	p := newProxy(c, s.within)
	if err := p.hello(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- p.read() }() // ends with the connection
	s.join(p)
	defer s.leave(p)
	if err := s.snapshot(p); err != nil {
		c.Close()
		return errors.Join(err, <-done)
	}
	s.conf.Log.Info("node proxy connected", "proxies", s.Connected())
	s.conf.Changed()
	return <-done
}

// join makes the proxy the one that new pods go to. Whoever wants to tell it something waits until leave or the end of
// the snapshot, so that it misses nothing.
func (s *Server) join(p *proxy) {
	p.turn.Lock() // nobody else knows it
	s.mu.Lock()
	defer s.mu.Unlock()
	s.proxies = append(s.proxies, p)
}

func (s *Server) leave(p *proxy) {
	s.mu.Lock()
	s.proxies = slices.DeleteFunc(s.proxies, func(o *proxy) bool { return o == p })
	if p.ready {
		s.ready--
	}
	others := len(s.proxies) > 0
	s.mu.Unlock()
	if others {
		s.conf.Changed()
	}
}

// snapshot sends every workload. One that the proxy refuses is tried again by the agent.
func (s *Server) snapshot(p *proxy) error {
	defer p.turn.Unlock()
	s.mu.Lock()
	all := slices.Collect(maps.Keys(s.workloads))
	s.mu.Unlock()
	for _, uid := range all {
		var refused *RefusedError
		if err := s.bring(p, uid); errors.As(err, &refused) {
			s.conf.Log.Warn("node proxy refuses a pod of the snapshot", "uid", uid, "error", err)
		} else if err != nil {
			return err
		}
	}
	if err := p.ask(&zds.WorkloadRequest{Payload: &zds.WorkloadRequest_SnapshotSent{SnapshotSent: &zds.SnapshotSent{}}}, nil); err != nil {
		return fmt.Errorf("end of the snapshot: %w", err)
	}
	s.mu.Lock()
	p.ready = true
	s.ready++
	s.mu.Unlock()
	return nil
}

// bring tells a proxy, whose turn it is, of a workload unless it has it already or the workload is gone.
func (s *Server) bring(p *proxy, uid string) error {
	s.mu.Lock()
	w, ok := s.workloads[uid]
	if !ok || p.has(w) {
		s.mu.Unlock()
		return nil
	}
	if w.NS == nil {
		s.mu.Unlock()
		return p.keep(w)
	}
	var err error
	w.NS, err = w.NS.Dup() // Del may close the other meanwhile
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return errors.Join(p.add(w), w.NS.Close())
}

// Serving reports whether proxies can connect.
func (s *Server) Serving() bool { return s.serving.Load() }

// Connected is how many proxies are connected and have their snapshot.
func (s *Server) Connected() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ready
}

// Await waits until a proxy is connected and has its snapshot, or ctx ends.
func (s *Server) Await(ctx context.Context) {
	for s.Connected() == 0 {
		select {
		case <-ctx.Done():
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Add hands a workload to the newest proxy and returns once that has it. It takes over the namespace, also when it
// fails: a proxy that connects later is told. The same workload in the same namespace is not sent twice.
func (s *Server) Add(w Workload) error {
	p := s.remember(w)
	if p == nil {
		return ErrNoProxy
	}
	p.turn.Lock()
	defer p.turn.Unlock()
	if err := s.bring(p, w.UID); err != nil {
		return fmt.Errorf("hand pod to the node proxy: %w", err)
	}
	return nil
}

// Keep remembers a pod that is captured though its namespace is not known: a proxy that connects does not drop it, and Add says
// the rest once it is known.
func (s *Server) Keep(uid string) {
	s.remember(Workload{UID: uid})
}

// remember keeps a workload and gives the newest proxy.
func (s *Server) remember(w Workload) *proxy {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, had := s.workloads[w.UID]
	if had && (w.NS == nil || old.id() == w.id()) {
		w.close()
		w.NS = old.NS
	} else if had {
		old.close()
	}
	s.workloads[w.UID] = w
	if len(s.proxies) == 0 {
		return nil
	}
	return s.proxies[len(s.proxies)-1]
}

// Del takes a workload from every proxy that was told of it.
func (s *Server) Del(uid string) error {
	s.mu.Lock()
	w, ok := s.workloads[uid]
	if !ok {
		s.mu.Unlock()
		return nil
	}
	delete(s.workloads, uid)
	w.close()
	proxies := slices.Clone(s.proxies)
	s.mu.Unlock()
	failed := make([]error, len(proxies))
	var wg sync.WaitGroup
	for i, p := range proxies { // one that hangs must not keep a pod alive at another
		wg.Go(func() {
			if err := p.del(uid); err != nil {
				failed[i] = fmt.Errorf("take pod from a node proxy: %w", err)
			}
		})
	}
	wg.Wait()
	return errors.Join(failed...)
}
