package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Seen is what the server saw of all connections.
type Seen struct {
	Accepted, Whole, Bytes int64
	// Wrong are connections with a wrong byte, False those whose cut request looked complete: a clean end too early.
	Wrong, False int64
	// Broken ended by an error, as connections that the client resets must.
	Broken int64
}

type server struct {
	accepted, whole, bytes, wrong, false_, broken atomic.Int64
}

func serve(ctx context.Context, address string) error {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return fmt.Errorf("port of %q: %w", address, err)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	told, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port+1)))
	if err != nil {
		return err
	}
	var s server
	web := http.Server{Handler: http.HandlerFunc(s.tell), ReadHeaderTimeout: 5 * time.Second}
	context.AfterFunc(ctx, func() { _ = l.Close(); _ = web.Close() })
	go func() { _ = web.Serve(told) }()
	fmt.Println("serving", address)
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // out of descriptors: some come back
			continue
		}
		s.accepted.Add(1)
		wg.Go(func() { s.count(s.one(ctx, c.(*net.TCPConn))) })
	}
}

func (s *server) tell(w http.ResponseWriter, _ *http.Request) {
	_ = json.NewEncoder(w).Encode(Seen{
		Accepted: s.accepted.Load(), Whole: s.whole.Load(), Bytes: s.bytes.Load(), Wrong: s.wrong.Load(),
		False: s.false_.Load(), Broken: s.broken.Load(),
	})
}

func (s *server) count(err error) {
	switch {
	case err == nil:
		s.whole.Add(1)
	case errors.Is(err, errWrong), errors.Is(err, errMore):
		s.wrong.Add(1)
	case errors.Is(err, errShort):
		s.false_.Add(1)
	default:
		s.broken.Add(1)
	}
}

func (s *server) one(ctx context.Context, c *net.TCPConn) error {
	defer c.Close()
	var patience atomic.Int64 // after ctx's end, in which short connections are finished
	patience.Store(int64(5 * time.Second))
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Now().Add(time.Duration(patience.Load()))) })()
	p, err := readPlan(c)
	if err != nil {
		return err // also a probe that connects and leaves
	}
	if p.end == long || p.end == bulk {
		patience.Store(0)
	}
	s.bytes.Add(planSize)
	switch p.end {
	case long:
		return s.echo(c)
	case bulk:
		return s.pour(c, p)
	}
	r := rand.New(rand.NewPCG(p.seed, 2)) //nolint:gosec // test data
	switch p.end {
	case serverFirst:
		if err := pieces(c, p.downBytes(), r); err != nil {
			return err
		}
		if err := c.CloseWrite(); err != nil {
			return err
		}
		return s.read(c, p)
	case serverReset:
		if err := s.read(c, p); err != nil {
			return err
		}
		if err := pieces(c, p.downBytes()[:p.down/2], r); err != nil {
			return err
		}
		time.Sleep(silence) // so that what was sent is not discarded with the reset
		return reset(c)
	default:
		if err := s.read(c, p); err != nil {
			return err
		}
		if err := pieces(c, p.downBytes(), r); err != nil {
			return err
		}
		return c.CloseWrite()
	}
}

func (s *server) read(c *net.TCPConn, p plan) error {
	err := expect(c, p.upBytes(), true)
	if err == nil {
		s.bytes.Add(int64(p.up))
	}
	return err
}

// pour sends as many MiB as the plan wants.
func (s *server) pour(c *net.TCPConn, p plan) error {
	b := noise(p.seed, 1<<20)
	for range p.down {
		if _, err := c.Write(b); err != nil {
			return err
		}
	}
	return c.CloseWrite()
}

// echo sends everything back.
func (s *server) echo(c *net.TCPConn) error {
	b := make([]byte, 4<<10)
	for {
		n, err := c.Read(b)
		if errors.Is(err, io.EOF) {
			return c.CloseWrite()
		}
		if err != nil {
			return err
		}
		s.bytes.Add(int64(n))
		if _, err := c.Write(b[:n]); err != nil {
			return err
		}
	}
}
