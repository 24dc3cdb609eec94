package admission

import (
	"context"
	"sync"
)

// room is for how many requests at once there is memory: so many in all, of which one host has so many at most.
type room struct {
	all     chan struct{}
	perHost int

	mu    sync.Mutex // guards below
	hosts map[string]*share
}

// share is what one host has of a room.
type share struct {
	places chan struct{}
	users  int // of the share, inside and waiting
}

func newRoom(all, perHost int) *room {
	return &room{all: make(chan struct{}, all), perHost: perHost, hosts: map[string]*share{}}
}

// enter waits for a place, until ctx ends. Whoever has one must leave.
func (r *room) enter(ctx context.Context, host string) (leave func(), err error) {
	s := r.open(host)
	select {
	case s.places <- struct{}{}:
	case <-ctx.Done():
		r.close(host)
		return nil, ctx.Err()
	}
	select {
	case r.all <- struct{}{}:
	case <-ctx.Done():
		<-s.places
		r.close(host)
		return nil, ctx.Err()
	}
	return func() {
		<-r.all
		<-s.places
		r.close(host)
	}, nil
}

func (r *room) open(host string) *share {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, ok := r.hosts[host]
	if !ok {
		s = &share{places: make(chan struct{}, r.perHost)}
		r.hosts[host] = s
	}
	s.users++
	return s
}

func (r *room) close(host string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.hosts[host]; s != nil {
		if s.users--; s.users == 0 {
			delete(r.hosts, host)
		}
	}
}
