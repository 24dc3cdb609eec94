// Package zds tells node proxies which pods are theirs, and hands them the pods' network namespaces.
package zds

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"

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
	socket string
	log    *slog.Logger

	mu        sync.Mutex // guards below; held while a proxy is sent its snapshot, so that it misses nothing
	workloads map[string]Workload
	proxies   []*proxy // oldest first
}

// New makes a server on a unix socket.
func New(socket string, log *slog.Logger) *Server {
	return &Server{socket: socket, log: log, workloads: map[string]Workload{}}
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
	if err := os.Chmod(s.socket, 0o600); err != nil {
		return errors.Join(err, l.Close())
	}
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
	if uid != 0 && int(uid) != os.Geteuid() {
		return fmt.Errorf("process of user %d may not be a node proxy", uid)
	}
	p := newProxy(c)
	if err := p.hello(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- p.read() }() // ends with the connection
	if err := s.snapshot(p); err != nil {
		c.Close()
		return errors.Join(err, <-done)
	}
	s.log.Info("node proxy connected", "proxies", s.Connected())
	err = <-done
	s.mu.Lock()
	s.proxies = slices.DeleteFunc(s.proxies, func(o *proxy) bool { return o == p })
	s.mu.Unlock()
	return err
}

// snapshot sends every workload and makes the proxy the one that new pods go to. A workload that it refuses is tried
// again by the agent, which looks after its pods from time to time.
func (s *Server) snapshot(p *proxy) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.workloads {
		var refused *RefusedError
		if err := p.add(w); errors.As(err, &refused) {
			s.log.Warn("node proxy refuses a pod of the snapshot", "pod", w.Namespace+"/"+w.Name, "error", err)
			p.lacks(w.UID)
		} else if err != nil {
			return err
		}
	}
	if err := p.ask(&zds.WorkloadRequest{Payload: &zds.WorkloadRequest_SnapshotSent{SnapshotSent: &zds.SnapshotSent{}}}, nil); err != nil {
		return fmt.Errorf("end of the snapshot: %w", err)
	}
	s.proxies = append(s.proxies, p)
	return nil
}

// Connected is how many proxies are connected.
func (s *Server) Connected() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.proxies)
}

// Add hands a workload to the newest proxy and returns once that has it. It takes over the namespace, also when it
// fails: a proxy that connects later is told. The same workload in the same namespace is not sent twice.
func (s *Server) Add(w Workload) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, had := s.workloads[w.UID]
	same := had && old.NS.ID() == w.NS.ID()
	if same {
		w.NS.Close()
		w.NS = old.NS
	} else if had {
		old.NS.Close()
	}
	s.workloads[w.UID] = w
	if len(s.proxies) == 0 {
		return ErrNoProxy
	}
	newest := s.proxies[len(s.proxies)-1]
	if same && newest.has(w.UID) {
		return nil
	}
	if err := newest.add(w); err != nil {
		newest.lacks(w.UID)
		return fmt.Errorf("hand pod to the node proxy: %w", err)
	}
	return nil
}

// Del takes a workload from every proxy.
func (s *Server) Del(uid string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	w, ok := s.workloads[uid]
	if !ok {
		return nil
	}
	delete(s.workloads, uid)
	w.NS.Close()
	var failed []error
	for _, p := range s.proxies {
		if err := p.ask(&zds.WorkloadRequest{Payload: &zds.WorkloadRequest_Del{Del: &zds.DelWorkload{Uid: uid}}}, nil); err != nil {
			failed = append(failed, fmt.Errorf("take pod from a node proxy: %w", err))
		}
	}
	return errors.Join(failed...)
}
