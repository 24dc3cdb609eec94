package hbone_test

import (
	"io"
	"net"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

// path is a way from an application to a backend: through two proxies and a tunnel, or through two plain relays.
type path interface {
	open() (app, backend *net.TCPConn)
}

// relays copies between sockets twice, with the buffers that the tunnel uses, and encrypts nothing: what two proxies
// cost at least.
type relays struct {
	b              *testing.B
	first, backend *net.TCPListener
}

func newRelays(b *testing.B) *relays {
	r := &relays{b: b, first: listen(b), backend: listen(b)}
	second := listen(b)
	var wg sync.WaitGroup
	serve := func(from, to *net.TCPListener) {
		for {
			in, err := from.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to.Addr().String())
			if err != nil {
				in.Close()
				return
			}
			carry := func(dst, src net.Conn) {
				buf := make([]byte, 64<<10)
				io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, buf) // no splice
				dst.(*net.TCPConn).CloseWrite()
			}
			wg.Go(func() {
				var two sync.WaitGroup
				two.Go(func() { carry(out, in) })
				carry(in, out)
				two.Wait()
				in.Close()
				out.Close()
			})
		}
	}
	wg.Go(func() { serve(r.first, second) })
	wg.Go(func() { serve(second, r.backend) })
	b.Cleanup(func() {
		r.first.Close()
		second.Close()
		r.backend.Close()
		wg.Wait()
	})
	return r
}

func (r *relays) open() (app, backend *net.TCPConn) {
	a, err := net.Dial("tcp", r.first.Addr().String())
	if err != nil {
		r.b.Fatal(err)
	}
	c, err := r.backend.Accept()
	if err != nil {
		r.b.Fatal(err)
	}
	r.b.Cleanup(func() { a.Close(); c.Close() })
	return a.(*net.TCPConn), c.(*net.TCPConn)
}

// cpu is the processor time that the process has used. Both ends of every path are in it, equal for all paths: compare
// paths of one run.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func paths(b *testing.B, f func(*testing.B, path)) {
	b.Run("tunnel", func(b *testing.B) { f(b, newChain(b)) })
	b.Run("relays", func(b *testing.B) { f(b, newRelays(b)) })
}

func bulk(b *testing.B, p path, streams int) {
	const piece = 256 << 10
	var wg sync.WaitGroup
	b.SetBytes(piece)
	b.ReportAllocs()
	type pair struct{ app, back *net.TCPConn }
	var pairs []pair
	for range streams {
		a, c := p.open()
		pairs = append(pairs, pair{a, c})
	}
	before := cpu(b)
	b.ResetTimer()
	for i, x := range pairs {
		n := b.N / streams
		if i < b.N%streams {
			n++
		}
		wg.Go(func() {
			buf := make([]byte, piece)
			for range n {
				if _, err := x.app.Write(buf); err != nil {
					b.Error(err)
					return
				}
			}
			x.app.CloseWrite()
		})
		wg.Go(func() {
			if m, err := io.Copy(io.Discard, struct{ io.Reader }{x.back}); err != nil || m != int64(n)*piece {
				b.Errorf("%d bytes, %v", m, err)
			}
			x.back.Close()
		})
	}
	wg.Wait()
	b.ReportMetric(float64(cpu(b)-before)/float64(b.N)/piece, "cpu-s/GB")
}

func BenchmarkBulk1(b *testing.B) { paths(b, func(b *testing.B, p path) { bulk(b, p, 1) }) }
func BenchmarkBulk8(b *testing.B) { paths(b, func(b *testing.B, p path) { bulk(b, p, 8) }) }

func BenchmarkRequestResponse(b *testing.B) {
	paths(b, func(b *testing.B, p path) {
		app, back := p.open()
		var wg sync.WaitGroup
		wg.Go(func() { io.Copy(struct{ io.Writer }{back}, struct{ io.Reader }{back}); back.Close() })
		buf := make([]byte, 128)
		b.ReportAllocs()
		before := cpu(b)
		b.ResetTimer()
		for range b.N {
			if _, err := app.Write(buf); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(app, buf); err != nil {
				b.Fatal(err)
			}
		}
		b.StopTimer()
		b.ReportMetric(float64(cpu(b)-before)/1e3/float64(b.N), "cpu-us/op")
		app.Close()
		wg.Wait()
	})
}

func BenchmarkOpen(b *testing.B) {
	paths(b, func(b *testing.B, p path) {
		b.ReportAllocs()
		before := cpu(b)
		for range b.N {
			app, back := p.open()
			app.Close()
			io.Copy(io.Discard, back)
			back.Close()
			if c, ok := p.(*chain); ok {
				<-c.results
				<-c.remote
			}
		}
		b.ReportMetric(float64(cpu(b)-before)/1e3/float64(b.N), "cpu-us/op")
	})
}

// BenchmarkIdle tells what an idle connection costs in the memory of this process, which has both proxies and both ends
// of it: heap, stacks and goroutines.
func BenchmarkIdle(b *testing.B) {
	paths(b, func(b *testing.B, p path) {
		p.open() // what all connections share
		var before, after runtime.MemStats
		measure := func(m *runtime.MemStats) int {
			runtime.GC()
			runtime.GC()
			runtime.ReadMemStats(m)
			return runtime.NumGoroutine()
		}
		goroutines := measure(&before)
		b.ResetTimer()
		for range b.N {
			app, back := p.open()
			app.Write([]byte("hello"))
			io.ReadFull(back, make([]byte, 5))
			back.Write([]byte("hello"))
			io.ReadFull(app, make([]byte, 5))
		}
		b.StopTimer()
		n := float64(b.N)
		b.ReportMetric(float64(measure(&after)-goroutines)/n, "goroutines/conn")
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "heap-B/conn")
		b.ReportMetric(float64(after.StackInuse-before.StackInuse)/n, "stack-B/conn")
	})
}
