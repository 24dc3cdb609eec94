package load

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"
)

// Report is what became of everything that was offered. Times are Unix milliseconds, durations milliseconds.
type Report struct {
	Tried, Whole int
	// Failed counts reasons; Wrong and False are those that must never be: a wrong byte, a cut answer that looked complete.
	Failed       map[string]int
	Wrong, False int
	// First and Last failure, 0 without one; Gap is the longest time between two successes.
	First, Last, Gap int64
	P50, P99, Worst  float64
	// Long is how many connections were held open, Lost how many of them ended early, and Silent the longest wait for an answer.
	Long, Lost int
	LostWhy    map[string]int
	Silent     int64
	// FirstLost is when the first of them ended, 0 without one.
	FirstLost int64
}

type offer struct {
	target           string
	rate, long, size int
	most             int
	rude             bool
	wait             time.Duration

	mu     sync.Mutex
	report Report
	took   []float64
	last   time.Time // success
}

func (o *offer) run(ctx context.Context) Report {
	o.report = Report{Failed: map[string]int{}, LostWhy: map[string]int{}, Long: o.long}
	o.last = time.Now()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	for range o.long {
		wg.Go(func() { o.hold(ctx) })
	}
	o.news(ctx, &wg)
	cancel()
	wg.Wait()
	o.report.Gap = max(o.report.Gap, time.Since(o.last).Milliseconds())
	slices.Sort(o.took)
	if n := len(o.took); n > 0 {
		o.report.P50, o.report.P99, o.report.Worst = o.took[n/2], o.took[n*99/100], o.took[n-1]
	}
	return o.report
}

// news starts connections at the rate, whatever becomes of the earlier ones.
func (o *offer) news(ctx context.Context, wg *sync.WaitGroup) {
	if o.rate <= 0 {
		<-ctx.Done()
		return
	}
	tick := time.NewTicker(time.Second / time.Duration(o.rate))
	defer tick.Stop()
	for n := 0; o.most == 0 || n < o.most; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		p := o.plan()
		wg.Go(func() {
			start := time.Now()
			o.note(start, o.one(context.WithoutCancel(ctx), p))
		})
	}
}

func (o *offer) plan() plan {
	p := plan{seed: rand.Uint64(), up: uint32(rand.IntN(o.size + 1)), down: uint32(rand.IntN(o.size + 1))} //nolint:gosec // test data
	p.end = ending(rand.IntN(int(serverFirst) + 1))
	if o.rude && rand.IntN(8) == 0 {
		p.end = serverReset + ending(rand.IntN(2))
		p.up, p.down = max(p.up, 2), max(p.down, 2)
	}
	return p
}

func (o *offer) note(start time.Time, err error) {
	now := time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.report.Tried++
	if err == nil {
		o.report.Whole++
		o.took = append(o.took, float64(now.Sub(start).Microseconds())/1000)
		o.report.Gap = max(o.report.Gap, now.Sub(o.last).Milliseconds())
		o.last = now
		return
	}
	switch {
	case errors.Is(err, errWrong), errors.Is(err, errMore):
		o.report.Wrong++
	case errors.Is(err, errShort):
		o.report.False++
	}
	o.report.Failed[reason(err)]++
	if o.report.First == 0 {
		o.report.First = start.UnixMilli()
	}
	o.report.Last = start.UnixMilli()
}

func reason(err error) string {
	if op := new(net.OpError); errors.As(err, &op) {
		return op.Op + ": " + op.Err.Error()
	}
	return err.Error()
}

// one makes a connection and holds it against its plan.
func (o *offer) one(ctx context.Context, p plan) error {
	ctx, cancel := context.WithTimeout(ctx, o.wait)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", o.target)
	if err != nil {
		return err
	}
	c := conn.(*net.TCPConn)
	defer c.Close()
	deadline, _ := ctx.Deadline()
	if err := c.SetDeadline(deadline); err != nil {
		return err
	}
	if err := p.write(c); err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(p.seed, 3)) //nolint:gosec // test data
	if p.end == clientReset {
		if err := pieces(c, p.upBytes()[:p.up/2], r); err != nil {
			return err
		}
		time.Sleep(silence)
		return reset(c)
	}
	sent := make(chan error, 1)
	go func() {
		err := pieces(c, p.upBytes(), r)
		if err == nil {
			err = c.CloseWrite()
		}
		sent <- err
	}()
	if p.end == serverReset {
		err := expect(c, p.downBytes(), true)
		_ = <-sent
		if err == nil || errors.Is(err, errShort) || errors.Is(err, errWrong) || errors.Is(err, errMore) {
			return fmt.Errorf("a reset answer: %w", cmp.Or(err, errShort))
		}
		return nil
	}
	err = expect(c, p.downBytes(), true)
	// The kernel tells of a reset once: if the writer heard of it, the reader sees an end.
	if e := <-sent; err == nil || e != nil && errors.Is(err, errShort) {
		err = e
	}
	return err
}

// hold keeps one connection until ctx ends, with a numbered message each way every 100 ms.
func (o *offer) hold(ctx context.Context) {
	silent, err := o.converse(ctx)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.report.Silent = max(o.report.Silent, silent.Milliseconds())
	if err != nil {
		o.report.Lost++
		o.report.LostWhy[reason(err)]++
		if o.report.FirstLost == 0 {
			o.report.FirstLost = time.Now().UnixMilli()
		}
	}
}

func (o *offer) converse(ctx context.Context) (silent time.Duration, err error) {
	conn, err := (&net.Dialer{Timeout: o.wait}).DialContext(ctx, "tcp", o.target)
	if err != nil {
		return 0, err
	}
	c := conn.(*net.TCPConn)
	defer c.Close()
	if err := (plan{end: long}).write(c); err != nil {
		return 0, err
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for n := uint64(1); ; n++ {
		select {
		case <-ctx.Done():
			if err := c.CloseWrite(); err != nil {
				return silent, err
			}
			return silent, expect(c, nil, true)
		case <-tick.C:
		}
		start := time.Now()
		b := binary.BigEndian.AppendUint64(make([]byte, 0, 64), n)
		if err := c.SetDeadline(start.Add(2 * time.Minute)); err != nil {
			return silent, err
		}
		if _, err := c.Write(b[:64]); err != nil {
			return silent, err
		}
		if err := expect(io.LimitReader(c, 64), b[:64], false); err != nil {
			return silent, err
		}
		silent = max(silent, time.Since(start))
	}
}
