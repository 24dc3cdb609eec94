package hbone_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/hbone"
)

// plan is what one connection of TestByteIntegrity does, known to both of its ends by its number.
type plan struct {
	up, down       int  // bytes
	cutUp, cutDown bool // the sender of that direction resets at half of it
	wait           bool // the backend says nothing before the application has ended
}

func planOf(number uint64) plan {
	r := rand.New(rand.NewPCG(number, 24))
	size := func() int {
		switch r.IntN(4) {
		case 0:
			return r.IntN(3)
		case 1:
			return r.IntN(3000)
		case 2:
			return r.IntN(100 << 10)
		}
		return r.IntN(1 << 20)
	}
	p := plan{up: size(), down: size(), wait: r.IntN(3) == 0}
	switch r.IntN(5) {
	case 0:
		p.cutUp = true
	case 1:
		p.cutDown = true
	}
	return p
}

// side is one end of a connection of the test.
type side struct {
	conn      *net.TCPConn
	number    uint64
	send, get int
	cut       bool // we reset
	cutOther  bool // the other end does

	got    []byte
	err    error // of reading
	broken bool  // of writing: the kernel tells of a reset once, to the one or the other
}

func (e *side) content(who byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(e.number), byte(e.number >> 8), byte(e.number >> 16), who}).Read(b)
	return b
}

// write sends what is planned in pieces of any size, and ends or resets.
func (e *side) write(who byte) {
	p, r := e.content(who, e.send), rand.New(rand.NewPCG(e.number, uint64(who)))
	if e.cut {
		p = p[:len(p)/2]
	}
	for len(p) > 0 {
		n := min(1+r.IntN(70_000), len(p))
		if _, err := e.conn.Write(p[:n]); err != nil {
			e.broken = true
			return
		}
		p = p[n:]
	}
	if e.cut {
		e.conn.SetLinger(0)
		e.conn.Close()
		return
	}
	e.conn.CloseWrite()
}

func (e *side) read() { e.got, e.err = io.ReadAll(e.conn) }

// judge reports a byte that is wrong, and an end that looks clean but is none.
func (e *side) judge(t *testing.T, who byte, mismatches, falseEnds *atomic.Int64) {
	got, want := e.got, e.content(who, e.get)
	if len(got) > len(want) || !bytes.Equal(got, want[:len(got)]) {
		mismatches.Add(1)
		t.Errorf("connection %d: wrong bytes from %c within %d", e.number, who, len(got))
	}
	clean := e.err == nil && !e.broken
	switch {
	case clean && (e.cutOther || len(got) < len(want)):
		falseEnds.Add(1)
		t.Errorf("connection %d: a clean end after %d of %d bytes from %c", e.number, len(got), len(want), who)
	case !clean && !e.cut && !e.cutOther:
		t.Errorf("connection %d: from %c: %v after %d of %d bytes", e.number, who, e.err, len(got), len(want))
	}
}

// F24: many connections with random sizes, half-closes and resets; every byte of either direction is looked at. HBONE_F24
// is how many; 500 otherwise.
func TestByteIntegrity_FT24(t *testing.T) {
	t.Run("through a tunnel", func(t *testing.T) {
		c := newChain(t)
		go func() {
			for range c.results {
			}
		}()
		go func() {
			for range c.remote {
			}
		}()
		integrity(t, c.outbound, c.backend, func() { c.mesh.end(t); c.wg.Wait(); close(c.results); close(c.remote) })
	})
	t.Run("two sockets", func(t *testing.T) {
		outbound, backend := listen(t), listen(t)
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				app, err := outbound.Accept()
				if err != nil {
					return
				}
				wg.Go(func() {
					to, err := net.Dial("tcp", backend.Addr().String())
					if err != nil {
						t.Error(err)
						app.Close()
						return
					}
					hbone.Join(context.Background(), app, to)
				})
			}
		})
		integrity(t, outbound, backend, wg.Wait)
	})
}

// integrity runs the connections from outbound to backend. end waits for what is between them.
func integrity(t *testing.T, outbound, backend *net.TCPListener, end func()) {
	connections := 500
	if n, err := strconv.Atoi(os.Getenv("HBONE_F24")); err == nil {
		connections = n
	}
	var mismatches, falseEnds atomic.Int64
	var far sync.WaitGroup
	far.Go(func() {
		for {
			conn, err := backend.Accept()
			if err != nil {
				return
			}
			far.Go(func() {
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(60 * time.Second))
				var number [8]byte
				if _, err := io.ReadFull(conn, number[:]); err != nil {
					return // reset before it said a word: there is nothing to judge
				}
				n := binary.BigEndian.Uint64(number[:])
				p := planOf(n)
				e := &side{conn: conn.(*net.TCPConn), number: n, send: p.down, get: p.up, cut: p.cutDown, cutOther: p.cutUp}
				if p.wait && !p.cutUp {
					e.read()
					e.write('b')
				} else {
					var both sync.WaitGroup
					both.Go(func() { e.write('b') })
					e.read()
					both.Wait()
				}
				e.judge(t, 'a', &mismatches, &falseEnds)
			})
		}
	})
	var near sync.WaitGroup
	var next atomic.Uint64
	for range 24 {
		near.Go(func() {
			for n := next.Add(1); n <= uint64(connections); n = next.Add(1) {
				conn, err := net.Dial("tcp", outbound.Addr().String())
				if err != nil {
					t.Errorf("connection %d: %v", n, err)
					return
				}
				conn.SetDeadline(time.Now().Add(60 * time.Second))
				p := planOf(n)
				e := &side{conn: conn.(*net.TCPConn), number: n, send: p.up, get: p.down, cut: p.cutUp, cutOther: p.cutDown}
				conn.Write(binary.BigEndian.AppendUint64(nil, n))
				var both sync.WaitGroup
				both.Go(func() { e.write('a') })
				e.read()
				both.Wait()
				e.judge(t, 'b', &mismatches, &falseEnds)
				conn.Close()
			}
		})
	}
	near.Wait()
	backend.Close()
	outbound.Close()
	far.Wait()
	end()
	t.Logf("%d connections: %d mismatches, %d false ends", connections, mismatches.Load(), falseEnds.Load())
}

// F25: an application that hardly reads costs a stream's window of memory, and its neighbours nothing.
func TestSlowConsumer_F25(t *testing.T) {
	c := newChain(t)
	transfer := func() time.Duration {
		app, back := c.open()
		sent, want := random(24<<20, 25)
		begin := time.Now()
		go func() { back.Write(sent); back.CloseWrite() }()
		h := sha256.New()
		if n, err := io.Copy(h, app); err != nil || [32]byte(h.Sum(nil)) != want {
			t.Errorf("neighbour: %d bytes, %v", n, err)
		}
		took := time.Since(begin)
		app.Close()
		return took
	}
	alone := min(transfer(), transfer(), transfer())
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	slow, source := c.open()
	slow.SetReadBuffer(4 << 10)
	full := make(chan struct{})
	go func() {
		p := make([]byte, 64<<10)
		for sent := 0; ; sent += len(p) {
			source.SetWriteDeadline(time.Now().Add(time.Second))
			if _, err := source.Write(p); err != nil {
				close(full)
				return
			}
		}
	}()
	go func() {
		for {
			if _, err := slow.Read(make([]byte, 1)); err != nil {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	}()
	within(t, 50*time.Second, "the slow one's window fills", full)
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 6<<20 {
		t.Errorf("%d KiB held for one slow consumer, a stream's window is 4096", grown>>10)
	}
	beside := min(transfer(), transfer(), transfer())
	t.Logf("a neighbour's 24 MiB: %v alone, %v beside the slow one", alone, beside)
	if beside > 3*alone { // leaves room for a busy machine: a stall takes seconds
		t.Errorf("a neighbour's 24 MiB took %v beside a slow consumer, %v alone", beside, alone)
	}
}
