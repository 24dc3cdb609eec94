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
	"github.com/ambit-mesh/ambit/linux/sock"
)

// Workload is a captured pod. Its namespace stays the server's until Del.
type Workload struct {
	UID, Name, Namespace, ServiceAccount string
	NS                                   *netns.Namespace
}

// ErrNoProxy means that no node proxy is connected.
var ErrNoProxy = errors.New("no ztunnel connection")

// Server is the agent's end. It remembers every workload, for proxies that connect later.
type Server struct {
	socket  string
	changed func()
	log     *slog.Logger
	serving atomic.Bool
	within  time.Duration

	mu        sync.Mutex // guards below; never held while a proxy is asked
	workloads map[string]Workload
	proxies   []*proxy // oldest first; those that are still sent their snapshot too
	ready     int      // proxies that have their snapshot
}

// New makes a server on a unix socket. changed is called when another proxy became the one that new pods go to:
// Add of every pod then brings it what it lacks. It must not block.
func New(socket string, log *slog.Logger, changed func()) *Server {
	return &Server{socket: socket, log: log, changed: changed, within: deadline, workloads: map[string]Workload{}}
}

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	if err := os.Remove(s.socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("socket for node proxies: %w", err)
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Net: "unixpacket", Name: s.socket})
	if err != nil {
		return fmt.Errorf("socket for node proxies: %w", err)
	}
	l.SetUnlinkOnClose(false) // the path may be the next agent's by then
	if err := os.Chmod(s.socket, 0o600); err != nil {
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
				s.log.Warn("connection of a node proxy ended", "error", err)
			}
		})
	}
}

// serve greets a proxy, sends it everything, and holds the connection until it breaks.
func (s *Server) serve(ctx context.Context, c *net.UnixConn) error {
	uid, err := sock.PeerUID(c)
	if err != nil {
		return err
	}
	if err := trusted(uid); err != nil {
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
	s.log.Info("node proxy connected", "proxies", s.Connected())
	s.changed()
	return <-done
}

// trusted refuses processes of other users: whoever has a pod's namespace has its traffic.
func trusted(uid uint32) error {
	if uid != 0 && int(uid) != os.Geteuid() {
		return fmt.Errorf("process of user %d may not be a node proxy", uid)
	}
	return nil
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
		s.changed()
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
			s.log.Warn("node proxy refuses a pod of the snapshot", "uid", uid, "error", err)
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

// remember keeps a workload and gives the newest proxy.
func (s *Server) remember(w Workload) *proxy {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, had := s.workloads[w.UID]
	if had && old.NS.ID() == w.NS.ID() {
		w.NS.Close()
		w.NS = old.NS
	} else if had {
		old.NS.Close()
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
	w.NS.Close()
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
