package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/test/lab/figures"
)

// open connects and says what the connection is for.
func open(ctx context.Context, to string, what byte, number uint64) (*net.TCPConn, error) {
	d := net.Dialer{Timeout: 10 * time.Second}
	c, err := d.DialContext(ctx, "tcp", to)
	if err != nil {
		return nil, err
	}
	if _, err := c.Write(binary.BigEndian.AppendUint64([]byte{what}, number)); err != nil {
		c.Close()
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// each runs f on so many connections at once; the first error is the result.
func each(n int, f func(i int) error) error {
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { errs[i] = f(i) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// bulk moves bytes over some connections. The time is from the first connection to the last answer.
func bulk(ctx context.Context, o options) (figures.Bulk, error) {
	part := o.bytes / int64(o.conns)
	one := up
	if o.down {
		one = down
	}
	start := time.Now()
	err := each(o.conns, func(int) error { return one(ctx, o, part) })
	return figures.Bulk{Bytes: part * int64(o.conns), Took: time.Since(start)}, err
}

func up(ctx context.Context, o options, n int64) error {
	hashed := uint64(0)
	if o.verify {
		hashed = 1
	}
	c, err := open(ctx, o.to, toSink, hashed)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := drain(c, n); err != nil {
		return err
	}
	reply, err := io.ReadAll(c)
	if err != nil {
		return fmt.Errorf("read the count: %w", err)
	}
	if len(reply) != 8+sha256.Size {
		return fmt.Errorf("the count has %d bytes", len(reply))
	}
	if got := int64(binary.BigEndian.Uint64(reply)); got != n {
		return fmt.Errorf("%d of %d bytes arrived", got, n)
	}
	if o.verify && !bytes.Equal(reply[8:], hashOf(n)) {
		return errors.New("other bytes arrived than were sent")
	}
	return nil
}

func down(ctx context.Context, o options, n int64) error {
	c, err := open(ctx, o.to, toDrain, uint64(n))
	if err != nil {
		return err
	}
	defer c.Close()
	b, sum, total := make([]byte, buffer), sha256.New(), int64(0)
	for {
		got, err := c.Read(b)
		total += int64(got)
		if o.verify {
			sum.Write(b[:got])
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if total != n {
		return fmt.Errorf("%d of %d bytes arrived", total, n)
	}
	if o.verify && !bytes.Equal(sum.Sum(nil), hashOf(n)) {
		return errors.New("other bytes arrived than were sent")
	}
	return nil
}

// hashOf is the hash of what drain sends.
func hashOf(n int64) []byte {
	b, sum := pattern(), sha256.New()
	for ; n > 0; n -= min(n, int64(len(b))) {
		sum.Write(b[:min(n, int64(len(b)))])
	}
	return sum.Sum(nil)
}

// exchange sends a message and reads it back.
func exchange(c net.Conn, out, in []byte) error {
	if _, err := c.Write(out); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, in); err != nil {
		return err
	}
	if !bytes.Equal(out, in) {
		return errors.New("the echo is another message")
	}
	return nil
}

// roundTrips exchanges messages on connections that stay open.
func roundTrips(ctx context.Context, o options) (figures.Trips, error) {
	took := make([][]time.Duration, o.conns)
	conns := make([]*net.TCPConn, o.conns)
	for i := range conns {
		c, err := open(ctx, o.to, toEcho, 0)
		if err != nil {
			return figures.Trips{}, err
		}
		defer c.Close()
		if err := exchange(c, make([]byte, o.size), make([]byte, o.size)); err != nil {
			return figures.Trips{}, err
		}
		conns[i] = c
	}
	start := time.Now()
	err := each(o.conns, func(i int) error {
		out, in := bytes.Repeat([]byte{byte(i)}, o.size), make([]byte, o.size)
		for time.Since(start) < o.length {
			t := time.Now()
			if err := exchange(conns[i], out, in); err != nil {
				return err
			}
			took[i] = append(took[i], time.Since(t))
		}
		return nil
	})
	return trips(slices.Concat(took...), time.Since(start)), err
}

// connect opens connections, makes an exchange on each and closes it.
func connect(ctx context.Context, o options) (figures.Trips, error) {
	took := make([][]time.Duration, o.conns)
	start := time.Now()
	err := each(o.conns, func(i int) error {
		out, in := bytes.Repeat([]byte{byte(i)}, o.size), make([]byte, o.size)
		for range o.count / o.conns {
			t := time.Now()
			c, err := open(ctx, o.to, toEcho, 0)
			if err != nil {
				return err
			}
			if err := errors.Join(exchange(c, out, in), c.Close()); err != nil {
				return err
			}
			took[i] = append(took[i], time.Since(t))
		}
		return nil
	})
	return trips(slices.Concat(took...), time.Since(start)), err
}

func trips(all []time.Duration, took time.Duration) figures.Trips {
	if len(all) == 0 {
		return figures.Trips{}
	}
	slices.Sort(all)
	at := func(q float64) time.Duration { return all[min(len(all)-1, int(q*float64(len(all))))] }
	return figures.Trips{Count: len(all), Took: took, Min: all[0], P50: at(.5), P99: at(.99), P999: at(.999), Max: all[len(all)-1]}
}

// idle opens connections, makes an exchange on each, says so and holds them until its input ends.
func idle(ctx context.Context, o options) error {
	var held []*net.TCPConn
	defer func() {
		for _, c := range held {
			c.Close()
		}
	}()
	for range o.count {
		c, err := open(ctx, o.to, toEcho, 0)
		if err != nil {
			return fmt.Errorf("connection %d: %w", len(held)+1, err)
		}
		held = append(held, c)
		if err := exchange(c, []byte("idle"), make([]byte, 4)); err != nil {
			return fmt.Errorf("connection %d: %w", len(held), err)
		}
	}
	if err := answer(figures.Event{What: "open", At: time.Now()}, nil); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}
