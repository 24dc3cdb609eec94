package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"

	"github.com/ambit-mesh/ambit/test/lab/figures"
)

// What a connection is for, by its first byte; a number of eight bytes follows.
const (
	toEcho  = 'e' // back as it came
	toSink  = 's' // read to the end; then its length, and, if the number is 1, its hash
	toDrain = 'd' // as many bytes as the number says
)

const buffer = 256 << 10

// server counts what reaches it.
type server struct{ conns, bytes, open atomic.Int64 }

// serve answers at one address and tells its counts at another, which only the pod itself can reach.
func serve(ctx context.Context, at, control string) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", at)
	if err != nil {
		return err
	}
	c, err := lc.Listen(ctx, "tcp", control)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { l.Close(); c.Close() })
	s := &server{}
	go func() {
		for {
			conn, err := c.Accept()
			if err != nil {
				return
			}
			if err := json.NewEncoder(conn).Encode(figures.Server{Conns: s.conns.Load(), Bytes: s.bytes.Load(), Open: s.open.Load()}); err != nil {
				fmt.Fprintln(os.Stderr, "counts not sent:", err)
			}
			conn.Close()
		}
	}()
	fmt.Println("serving")
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		s.conns.Add(1)
		s.open.Add(1)
		go func() {
			defer s.open.Add(-1)
			defer conn.Close()
			if err := s.handle(conn.(*net.TCPConn)); err != nil {
				fmt.Fprintln(os.Stderr, conn.RemoteAddr(), err)
			}
		}()
	}
}

func (s *server) handle(c *net.TCPConn) error {
	var head [9]byte
	n, err := io.ReadFull(c, head[:])
	s.bytes.Add(int64(n))
	if err != nil {
		if errors.Is(err, io.EOF) {
			return nil // it wanted nothing
		}
		return err
	}
	number := binary.BigEndian.Uint64(head[1:])
	switch head[0] {
	case toEcho:
		return s.echo(c)
	case toSink:
		return s.sink(c, number == 1)
	case toDrain:
		return drain(c, int64(number))
	}
	return fmt.Errorf("byte %#x says nothing", head[0])
}

func (s *server) echo(c *net.TCPConn) error {
	b := make([]byte, 2<<10) // ten thousand of them may be idle
	for {
		n, err := c.Read(b)
		s.bytes.Add(int64(n))
		if n > 0 {
			if _, err := c.Write(b[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return c.CloseWrite()
		}
		if err != nil {
			return err
		}
	}
}

func (s *server) sink(c *net.TCPConn, hashed bool) error {
	b, sum, total := make([]byte, buffer), sha256.New(), int64(0)
	for {
		n, err := c.Read(b)
		s.bytes.Add(int64(n))
		total += int64(n)
		if hashed {
			sum.Write(b[:n])
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	reply := binary.BigEndian.AppendUint64(nil, uint64(total))
	_, err := c.Write(sum.Sum(reply))
	return err
}

// drain sends the pattern, n bytes of it.
func drain(c *net.TCPConn, n int64) error {
	b := pattern()
	for n > 0 {
		w, err := c.Write(b[:min(n, int64(len(b)))])
		if err != nil {
			return err
		}
		n -= int64(w)
	}
	return c.CloseWrite()
}

// pattern is what bulk is made of: no two blocks of 16 bytes are alike, so that none can be lost, doubled or moved unseen.
func pattern() []byte {
	b := make([]byte, 0, buffer)
	for i := uint64(0); len(b) < buffer; i++ {
		b = binary.BigEndian.AppendUint64(b, i*0x9e3779b97f4a7c15)
		b = binary.LittleEndian.AppendUint64(b, i)
	}
	return b
}

// stats prints a server's counts.
func stats(ctx context.Context, control string) error {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", control)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = io.Copy(os.Stdout, c)
	return err
}

// relay is the plainest proxy that there is: two copies with a buffer each.
func relay(ctx context.Context, at, to string) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", at)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { l.Close() })
	buffers := &sync.Pool{New: func() any { return new([buffer]byte) }}
	for {
		in, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		go func() {
			defer in.Close()
			out, err := (&net.Dialer{}).DialContext(ctx, "tcp", to)
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				return
			}
			defer out.Close()
			var both sync.WaitGroup
			both.Go(func() { oneWay(out.(*net.TCPConn), in.(*net.TCPConn), buffers) })
			both.Go(func() { oneWay(in.(*net.TCPConn), out.(*net.TCPConn), buffers) })
			both.Wait()
		}()
	}
}

// oneWay copies without splice: what a proxy that must see the bytes pays at least. Hidden types keep io.Copy to it.
func oneWay(to, from *net.TCPConn, buffers *sync.Pool) {
	b := buffers.Get().(*[buffer]byte)
	defer buffers.Put(b)
	_, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, b[:])
	if err != nil {
		to.SetLinger(0) //nolint:errcheck // it only makes the end abrupt
		to.Close()
		return
	}
	to.CloseWrite() //nolint:errcheck // the other side has left
}
