// Package witness is a server for tests of a mesh: it says who it is, and what reached it, byte by byte.
package witness

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/ambit-mesh/ambit/samples/apps/echo"
)

// Seen is what came from one address to one port.
type Seen struct{ Connections, Bytes int64 }

// Witness serves on some ports and keeps count.
type Witness struct {
	name string
	sick atomic.Bool // its health checks fail

	let   chan struct{} // closed by letGo
	letGo func()

	mu   sync.Mutex
	seen map[string]map[string]*Seen // by port, then by the address it came from
}

// Run serves until ctx ends, and then finishes what it has in hand:
//
//	-http :8080    /          who answers, and whom it sees
//	               /seen      all that reached it, by port and address; since its start
//	               /health    200, or 503 after a POST to /health?ok=false; gRPC's health check likewise
//	               /linger    answers after a POST to it: a hook that a pod's end waits for
//	-echo :9000    sends every byte back, and an end after the peer's
//	-greet :9001   speaks first, a line, and then as -echo
//	-udp :9053     sends every datagram back
func Run(ctx context.Context, name string, args []string) error {
	f := flag.NewFlagSet("witness", flag.ContinueOnError)
	web := f.String("http", ":8080", "address for HTTP, gRPC's health check too; empty: none")
	back := f.String("echo", ":9000", "address for bytes that are sent back")
	greet := f.String("greet", ":9001", "address of a server that speaks first")
	udp := f.String("udp", ":9053", "address for datagrams that are sent back")
	if err := f.Parse(args); err != nil {
		return err
	}
	w := &Witness{name: name, let: make(chan struct{}), seen: map[string]map[string]*Seen{}}
	w.letGo = sync.OnceFunc(func() { close(w.let) })
	var g sync.WaitGroup
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for _, s := range []struct {
		address string
		serve   func(context.Context, net.Listener) error
	}{{*web, w.web}, {*back, w.tcp("")}, {*greet, w.tcp("220 " + name + "\n")}} {
		if s.address == "" {
			continue
		}
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.address)
		if err != nil {
			cancel(err)
			break
		}
		g.Go(func() { cancel(s.serve(ctx, counted{l, w})) })
	}
	fmt.Println(name, "listens")
	if *udp != "" {
		p, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", *udp)
		if err != nil {
			cancel(err)
		} else {
			g.Go(func() { cancel(w.datagrams(ctx, p)) })
		}
	}
	g.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// tcp sends the greeting and then every byte back.
func (w *Witness) tcp(greeting string) func(context.Context, net.Listener) error {
	return func(ctx context.Context, l net.Listener) error {
		defer context.AfterFunc(ctx, func() { _ = l.Close() })()
		return echo.Accept(ctx, l, func(c net.Conn) {
			if _, err := io.WriteString(c, greeting); err != nil {
				return // the client has left
			}
			// Only Read counts, so nothing of the kernel's may copy past it.
			if _, err := io.Copy(c, struct{ io.Reader }{c}); err == nil {
				_ = c.(*conn).CloseWrite()
			}
		})
	}
}

func (w *Witness) datagrams(ctx context.Context, p net.PacketConn) error {
	defer context.AfterFunc(ctx, func() { _ = p.Close() })()
	b := make([]byte, 64<<10)
	for {
		n, from, err := p.ReadFrom(b)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("read a datagram: %w", err)
		}
		w.count(p.LocalAddr(), from, 1, n)
		_, _ = p.WriteTo(b[:n], from) // a datagram may be lost
	}
}

// count adds to what came from an address to a port.
func (w *Witness) count(at, from net.Addr, connections, bytes int) {
	_, port, _ := net.SplitHostPort(at.String())
	host, _, _ := net.SplitHostPort(from.String())
	w.mu.Lock()
	defer w.mu.Unlock()
	byAddress := w.seen[port]
	if byAddress == nil {
		byAddress = map[string]*Seen{}
		w.seen[port] = byAddress
	}
	s := byAddress[host]
	if s == nil {
		s = &Seen{}
		byAddress[host] = s
	}
	s.Connections += int64(connections)
	s.Bytes += int64(bytes)
}

func (w *Witness) tell(out http.ResponseWriter, _ *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = json.NewEncoder(out).Encode(w.seen) // a client that left learns nothing
}

// counted counts what its connections bring.
type counted struct {
	net.Listener
	w *Witness
}

func (l counted) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.w.count(c.LocalAddr(), c.RemoteAddr(), 1, 0)
	return &conn{c.(*net.TCPConn), l.w}, nil
}

type conn struct {
	*net.TCPConn
	w *Witness
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	if n > 0 {
		c.w.count(c.LocalAddr(), c.RemoteAddr(), 0, n)
	}
	return n, err
}
