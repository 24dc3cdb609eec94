package main

import (
	"context"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/test/lab/figures"
)

// ask opens a connection, makes one exchange and tells how far it came.
func ask(ctx context.Context, to string) figures.Answer {
	start := time.Now()
	step, err := try(ctx, to)
	a := figures.Answer{Outcome: step, Took: time.Since(start)}
	if err != nil {
		a.Error = err.Error()
	}
	return a
}

func try(ctx context.Context, to string) (string, error) {
	c, err := open(ctx, to, toEcho, 0)
	if err != nil {
		return "connect", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return "connect", err
	}
	if err := exchange(c, []byte("who is there"), make([]byte, 12)); err != nil {
		return "read", err
	}
	return "ok", nil
}

// watch holds a connection that carries bytes and tries new ones all the time, and tells what changes and when.
func watch(ctx context.Context, to string) error {
	var mu sync.Mutex // guards the output
	tell := func(what string, why error) error {
		mu.Lock()
		defer mu.Unlock()
		e := figures.Event{What: what, At: time.Now()}
		if why != nil {
			e.Why = why.Error()
		}
		return answer(e, nil)
	}
	errs := make(chan error, 2)
	go func() { errs <- holding(ctx, to, tell) }()
	go func() { errs <- trying(ctx, to, tell) }()
	err := <-errs
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// holding keeps one connection busy; when it is cut it opens another as soon as that is possible.
func holding(ctx context.Context, to string, tell func(string, error) error) error {
	for ctx.Err() == nil {
		c, err := open(ctx, to, toEcho, 0)
		if err == nil {
			err = c.SetDeadline(time.Now().Add(5 * time.Second))
		}
		if err == nil {
			err = exchange(c, []byte{1}, make([]byte, 1))
		}
		if err != nil {
			if c != nil {
				c.Close()
			}
			pause(ctx)
			continue
		}
		if err := tell("open", nil); err != nil {
			return err
		}
		for err == nil && ctx.Err() == nil {
			pause(ctx)
			if err = c.SetDeadline(time.Now().Add(5 * time.Second)); err == nil {
				err = exchange(c, []byte{1}, make([]byte, 1))
			}
		}
		c.Close()
		if ctx.Err() != nil {
			return nil
		}
		if err := tell("cut", err); err != nil {
			return err
		}
	}
	return nil
}

func trying(ctx context.Context, to string, tell func(string, error) error) error {
	was := ""
	for ctx.Err() == nil {
		what := "allowed"
		step, err := try(ctx, to)
		if step != "ok" {
			what = "refused"
		}
		if what != was && ctx.Err() == nil {
			if err := tell(what, err); err != nil {
				return err
			}
			was = what
		}
		pause(ctx)
	}
	return nil
}

// pause paces the clients: the figures are exact to about this.
func pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(2 * time.Millisecond):
	}
}
