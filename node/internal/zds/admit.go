package zds

import (
	"context"
	"fmt"
	"net"
	"os"

	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/linux/sock"
)

// maxStrangers is how many connections out of one namespace may wait to be known: others must not wait for them.
const maxStrangers = 4

// admit returns nil when the other end is a node proxy. It must run as root, or as the agent's own user, in the network
// namespace of a proxy's pod. The process itself is not asked for: its number means nothing outside its PID namespace, and
// another process may have it by the time that anybody looks.
func (s *Server) admit(ctx context.Context, c *net.UnixConn) error {
	uid, err := sock.PeerUID(c)
	if err != nil {
		return err
	}
	if err := trusted(uid); err != nil {
		return err
	}
	ns, err := sock.PeerNamespace(c)
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := s.meet(ns.ID()); err != nil {
		return err
	}
	defer s.part(ns.ID())
	ctx, cancel := context.WithTimeout(ctx, s.within)
	defer cancel()
	return s.conf.Trusted(ctx, ns)
}

func (s *Server) meet(id netns.ID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.strangers[id] >= maxStrangers {
		return fmt.Errorf("%d connections out of network namespace %d wait already", maxStrangers, id.Inode)
	}
	s.strangers[id]++
	return nil
}

func (s *Server) part(id netns.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.strangers[id]--; s.strangers[id] == 0 {
		delete(s.strangers, id)
	}
}

// trusted refuses processes of other users: whoever has a pod's namespace has its traffic.
func trusted(uid uint32) error {
	if uid != 0 && int(uid) != os.Geteuid() {
		return fmt.Errorf("process of user %d may not be a node proxy", uid)
	}
	return nil
}
