package hbone

import (
	"container/list"
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Figures for connections whose peers have not proved who they are. A handshake takes a few milliseconds, a stranger's
// may take ten seconds and some 30 KiB.
const (
	maxUnprovenPeers  = 1024
	maxUnprovenSource = 64
	// overdue is how old a handshake must be to give its place to a new one.
	overdue = time.Second
)

var errCrowded = errors.New("too many connections of this address have not proved an identity")

// Unproven bounds the connections whose peers have not proved an identity yet, of one address and of all. Several
// servers may share one. The zero value is ready.
type Unproven struct {
	mu      sync.Mutex // guards below
	all     list.List  // of *stranger, the oldest first
	sources map[netip.Addr]*list.List
	left    chan struct{} // closed when one leaves; nil when nobody waits
}

type stranger struct {
	conn         net.Conn
	from         netip.Addr
	since        time.Time
	inAll, inOwn *list.Element
}

// enter takes a place, and waits for one if strangers of all addresses have them all. Of one address, and of all, the
// oldest loses its place if it is overdue. The connection must leave when its peer is proved, or closed.
func (u *Unproven) enter(ctx context.Context, conn net.Conn) (leave func(), err error) {
	s := &stranger{conn: conn, from: sourceOf(conn)}
	for {
		ok, left, err := u.try(s)
		if err != nil {
			return nil, err
		}
		if ok {
			return sync.OnceFunc(func() { u.leave(s) }), nil
		}
		again := time.NewTimer(overdue / 10)
		select {
		case <-left:
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return nil, context.Cause(ctx)
		}
		again.Stop()
	}
}

// try takes a place if there is one.
func (u *Unproven) try(s *stranger) (ok bool, left <-chan struct{}, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.sources == nil {
		u.sources = map[netip.Addr]*list.List{}
	}
	own := u.sources[s.from]
	if own != nil && own.Len() >= maxUnprovenSource && !u.evictLocked(own.Front()) {
		return false, nil, errCrowded
	}
	if u.all.Len() >= maxUnprovenPeers && !u.evictLocked(u.all.Front()) {
		if u.left == nil {
			u.left = make(chan struct{})
		}
		return false, u.left, nil
	}
	if own = u.sources[s.from]; own == nil {
		own = list.New()
		u.sources[s.from] = own
	}
	s.since = time.Now()
	s.inAll, s.inOwn = u.all.PushBack(s), own.PushBack(s)
	return true, nil, nil
}

// evictLocked closes a connection that is overdue.
func (u *Unproven) evictLocked(e *list.Element) bool {
	s := e.Value.(*stranger)
	if time.Since(s.since) < overdue {
		return false
	}
	u.removeLocked(s)
	_ = s.conn.Close() // its handshake fails, and says so
	return true
}

func (u *Unproven) leave(s *stranger) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.removeLocked(s)
}

func (u *Unproven) removeLocked(s *stranger) {
	if s.inAll == nil {
		return
	}
	own := u.sources[s.from]
	u.all.Remove(s.inAll)
	own.Remove(s.inOwn)
	s.inAll, s.inOwn = nil, nil
	if own.Len() == 0 {
		delete(u.sources, s.from)
	}
	if u.left != nil {
		close(u.left)
		u.left = nil
	}
}

func sourceOf(c net.Conn) netip.Addr {
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}
