package proxy

import (
	"context"
	"time"

	"github.com/ambit-mesh/ambit/linux/sock"
)

// handOver returns when this proxy should take no more connections. If another listens on its ports, that is when new
// connections go there and all that came here are accepted: closing a listener resets those that wait in its queue. If
// nobody does, connections that are refused would be lost, so it goes on until none is open or most of the time to
// drain is over.
func (p *Proxy) handOver(ctx context.Context) {
	ports := []*port{p.outbound, p.plaintext, p.tunnels}
	numbers := make([]uint16, len(ports))
	for i, l := range ports {
		numbers[i] = l.number
	}
	idle := p.open.idle()
	last := time.NewTimer(p.Grace * 3 / 4)
	defer last.Stop()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		all, err := sock.Listeners(p.pod.NS, numbers...)
		if err != nil {
			p.Log.Warn("no successor looked for", "error", err)
			return
		}
		followed := true
		for _, l := range ports {
			followed = followed && len(l.others(all)) > 0
		}
		if followed {
			p.leave(ctx, ports, all)
			return
		}
		select {
		case <-idle:
			return
		case <-last.C:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// leave steers new connections to the other proxy and waits until those are accepted that had begun before.
func (p *Proxy) leave(ctx context.Context, ports []*port, all map[uint16][]uint64) {
	var led []*steering
	for _, l := range ports {
		s := &steering{port: l, seen: l.taken.Load()}
		if others := l.others(all); len(others) == 1 {
			s.can, s.to = true, l.place(others[0])
			p.steer(s)
		}
		led = append(led, s)
	}
	end := time.NewTimer(min(restless, p.Grace/2))
	defer end.Stop()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for still := time.Now(); time.Since(still) < min(quiet, p.Grace/4); {
		select {
		case <-ctx.Done():
			return
		case <-end.C:
			p.Log.Warn("connections still came when the successor should have had them all")
			return
		case <-tick.C:
		}
		for _, s := range led {
			if s.came() {
				still = time.Now()
			}
			if s.astray() {
				p.steer(s)
			}
		}
	}
	p.Log.Info("new connections go to the successor")
}

// steering is a port whose connections are led away.
type steering struct {
	*port
	can   bool   // there are two listeners
	to    uint32 // the place of the other one: 0 or 1
	began time.Time
	seen  int64
	late  int // connections that came although they were led away long enough
}

func (p *Proxy) steer(s *steering) {
	s.began, s.late = time.Now(), 0
	if err := sock.Steer(s.TCPListener, s.to); err != nil {
		p.Log.Warn("new connections not led to the successor, the kernel shares them out", "error", err)
		s.can = false
	}
}

// came reports whether connections have come since the last look.
func (s *steering) came() bool {
	n := s.taken.Load() - s.seen
	s.seen += n
	if time.Since(s.began) > quiet/2 {
		s.late += int(n)
	}
	return n > 0
}

// astray tells that connections were led to us, and turns to the other place: places change when a third proxy leaves.
func (s *steering) astray() bool {
	if !s.can || s.late < 5 {
		return false
	}
	s.to = 1 - s.to
	return true
}
