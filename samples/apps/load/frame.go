package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"time"
)

// ending is how a connection is to end.
type ending byte

const (
	clean       ending = iota // each end sends all, then half-closes
	serverFirst               // the server answers and half-closes before it has read the request
	serverReset               // the server resets midway through its answer
	clientReset               // the client resets midway through its request
	long                      // messages to and fro until the client half-closes
	bulk                      // the server sends down MiB, all of the same bytes
)

// plan is what the client wants of a connection, and its first bytes.
type plan struct {
	end      ending
	up, down uint32
	seed     uint64
}

const planSize = 17

func (p plan) write(w io.Writer) error {
	b := make([]byte, 0, planSize)
	b = append(b, byte(p.end))
	b = binary.BigEndian.AppendUint32(b, p.up)
	b = binary.BigEndian.AppendUint32(b, p.down)
	b = binary.BigEndian.AppendUint64(b, p.seed)
	_, err := w.Write(b)
	return err
}

func readPlan(r io.Reader) (plan, error) {
	var b [planSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return plan{}, err
	}
	return plan{ending(b[0]), binary.BigEndian.Uint32(b[1:]), binary.BigEndian.Uint32(b[5:]), binary.BigEndian.Uint64(b[9:])}, nil
}

// Both ends make the same bytes of a plan: those going up from its seed, those going down from its complement.
func (p plan) upBytes() []byte   { return noise(p.seed, int(p.up)) }
func (p plan) downBytes() []byte { return noise(^p.seed, int(p.down)) }

func noise(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // test data
	b := make([]byte, n+8)
	for i := 0; i < n; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], r.Uint64())
	}
	return b[:n]
}

var (
	errWrong = errors.New("wrong byte")
	errShort = errors.New("clean end before the last byte")
	errMore  = errors.New("more bytes than were sent")
)

// expect reads exactly want and then, if last, a clean end.
func expect(r io.Reader, want []byte, last bool) error {
	got := make([]byte, len(want))
	n, err := io.ReadFull(r, got)
	for i := range n {
		if got[i] != want[i] {
			return fmt.Errorf("%w at %d of %d", errWrong, i, len(want))
		}
	}
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errShort
	case err != nil:
		return err
	case !last:
		return nil
	}
	var one [1]byte
	switch n, err := r.Read(one[:]); {
	case n > 0:
		return errMore
	case errors.Is(err, io.EOF):
		return nil
	case err == nil:
		return errMore
	default:
		return fmt.Errorf("at the end: %w", err)
	}
}

// reset ends a connection by a reset.
func reset(c *net.TCPConn) error {
	if err := c.SetLinger(0); err != nil {
		return err
	}
	return c.Close()
}

// pieces writes b in odd pieces.
func pieces(w io.Writer, b []byte, r *rand.Rand) error {
	for len(b) > 0 {
		n := min(len(b), 1+r.IntN(max(1, len(b))))
		if _, err := w.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

const silence = 100 * time.Millisecond
