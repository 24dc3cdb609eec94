package sandbox

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// relaySocket is in the state directory: unix sockets cross network namespaces, TCP does not.
const relaySocket = "relay.sock"

// Forward passes connections from a listener of the machine to an address inside, which ServeRelay's dial
// understands, until ctx ends. A connection that cannot be made is closed.
func (s *Sandbox) Forward(ctx context.Context, l net.Listener, to string) error {
	return forward(ctx, l, s.conf.State, to, s.conf.Log.Warn)
}

func forward(ctx context.Context, l net.Listener, state, to string, warn func(string, ...any)) error {
	return serve(ctx, l, func(c net.Conn) {
		in, err := DialUnix(ctx, filepath.Join(state, relaySocket))
		if err != nil {
			warn("relay into the sandbox", "to", to, "error", err)
			return
		}
		defer in.Close()
		if _, err := fmt.Fprintf(in, "%s\n", to); err != nil {
			warn("relay into the sandbox", "to", to, "error", err)
			return
		}
		join(c, in)
	})
}

// ServeRelay accepts what Forward sends, inside.
func ServeRelay(ctx context.Context, state string, dial func(ctx context.Context, to string) (net.Conn, error)) error {
	l, err := ListenUnix(filepath.Join(state, relaySocket))
	if err != nil {
		return fmt.Errorf("listen for the relay: %w", err)
	}
	return serve(ctx, l, func(c net.Conn) {
		r := bufio.NewReaderSize(c, 4096)
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second)) // a closed connection fails at the read
		to, err := r.ReadSlice('\n')
		if err != nil {
			return // the outer process went away
		}
		target := strings.TrimSuffix(string(to), "\n")
		_ = c.SetReadDeadline(time.Time{})
		out, err := dial(ctx, target)
		if err != nil {
			return // the other side sees the connection closed, as when a machine does not answer
		}
		defer out.Close()
		join(buffered{c, r}, out)
	})
}

// buffered reads first what was read ahead.
type buffered struct {
	net.Conn
	r io.Reader
}

func (b buffered) Read(p []byte) (int, error) { return b.r.Read(p) }

// CloseWrite tells the peer that no more comes.
func (b buffered) CloseWrite() error { return closeWrite(b.Conn) }

func closeWrite(c net.Conn) error {
	if w, ok := c.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return c.Close()
}

// join copies both ways until both have ended, each end's silence passed on.
func join(a, b net.Conn) {
	var wg sync.WaitGroup
	one := func(to, from net.Conn) {
		_, _ = io.Copy(to, from) // an error ends this way as an end does
		_ = closeWrite(to)
	}
	wg.Go(func() { one(a, b) })
	wg.Go(func() { one(b, a) })
	wg.Wait()
}

// serve accepts until ctx ends, then closes every connection and waits for its handler.
func serve(ctx context.Context, l net.Listener, handle func(net.Conn)) error {
	var wg sync.WaitGroup
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	defer wg.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return ctx.Err()
			}
			return fmt.Errorf("accept: %w", err)
		}
		wg.Go(func() {
			defer c.Close()
			defer context.AfterFunc(ctx, func() { _ = c.Close() })()
			handle(c)
		})
	}
}

// DialUnix connects to a unix socket however long its path is.
func DialUnix(ctx context.Context, path string) (*net.UnixConn, error) {
	short, done, err := shorten(path)
	if err != nil {
		return nil, err
	}
	defer done()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", short)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", path, err)
	}
	return c.(*net.UnixConn), nil
}

// ListenUnix listens on a unix socket for this user alone, in place of one that an ended process left.
func ListenUnix(path string) (*net.UnixListener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the old socket: %w", err)
	}
	short, done, err := shorten(path)
	if err != nil {
		return nil, err
	}
	defer done()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false) // its name was a shortened one
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// longest is what the kernel takes as a socket's path.
const longest = 107

func shorten(path string) (short string, done func(), err error) {
	if len(path) <= longest {
		return path, func() {}, nil
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, fmt.Errorf("open the socket's directory: %w", err)
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)), func() { _ = dir.Close() }, nil
}
