package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/linux/sock"
	"github.com/ambit-mesh/ambit/mesh"
)

const (
	// patience is how long a client waits at most, resolvers that are away included: the C library waits 5 s.
	patience = 4500 * time.Millisecond
	// oneTry is how long one resolver may take before the next is asked.
	oneTry = 2 * time.Second
	rounds = 2
)

// resolver asks resolvers from inside a pod, so that its network decides whether they are reached.
type resolver struct {
	ns               *netns.Namespace
	servers          []netip.AddrPort
	patience, oneTry time.Duration
}

var errNoResolver = errors.New("no resolver is known")

// ask asks the resolvers in turn and gives the first answer as the client must see it.
func (r *resolver) ask(ctx context.Context, q query, via protocol) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, r.patience)
	defer cancel()
	var errs []error
	for range rounds {
		for _, server := range r.servers {
			if ctx.Err() != nil {
				return nil, errors.Join(errs...)
			}
			out, err := r.exchange(ctx, server, q, via)
			if err == nil {
				return out, nil
			}
			errs = append(errs, fmt.Errorf("resolver %s: %w", server, err))
		}
	}
	if len(errs) == 0 {
		return nil, errNoResolver
	}
	return nil, errors.Join(errs...)
}

// exchange asks one resolver. The query gets another id and a port of its own, which an attacker would have to guess.
func (r *resolver) exchange(ctx context.Context, server netip.AddrPort, q query, via protocol) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, r.oneTry)
	defer cancel()
	id := uint16(rand.Uint32()) // ChaCha8, seeded by the kernel
	ask := append([]byte(nil), q.raw...)
	binary.BigEndian.PutUint16(ask, id)
	o := sock.Options{Mark: mesh.Mark}
	var c net.Conn
	var err error
	if via == tcp {
		c, err = sock.Dial(ctx, r.ns, netip.AddrPort{}, server, o)
	} else {
		c, err = sock.DialUDP(r.ns, server, o)
	}
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })() // closed, it waits for nothing
	var answer []byte
	if via == tcp {
		answer, err = exchangeTCP(c, ask)
		if err == nil && !q.answers(id, answer) {
			err = errors.New("answers another question")
		}
	} else {
		answer, err = exchangeUDP(c, ask, func(b []byte) bool { return q.answers(id, b) })
	}
	if err != nil {
		return nil, err
	}
	binary.BigEndian.PutUint16(answer, q.header.ID)
	return answer, nil
}

// exchangeUDP waits for the packet that is the answer: others may come from whoever forges the resolver's address.
func exchangeUDP(c net.Conn, ask []byte, answers func([]byte) bool) ([]byte, error) {
	if _, err := c.Write(ask); err != nil {
		return nil, err
	}
	b := make([]byte, mostSize)
	for {
		n, err := c.Read(b)
		if err != nil {
			return nil, err
		}
		if answers(b[:n]) {
			return b[:n], nil
		}
	}
}

func exchangeTCP(c net.Conn, ask []byte) ([]byte, error) {
	if err := writeTCP(c, ask); err != nil {
		return nil, err
	}
	return readTCP(c)
}

// readTCP reads a message after its length, RFC 1035 4.2.2.
func readTCP(r io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(size[:]))
	_, err := io.ReadFull(r, b)
	return b, err
}

func writeTCP(w io.Writer, message []byte) error {
	if len(message) > 1<<16-1 {
		return fmt.Errorf("message of %d bytes", len(message))
	}
	_, err := w.Write(append(binary.BigEndian.AppendUint16(make([]byte, 0, len(message)+2), uint16(len(message))), message...))
	return err
}
