package control

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/control/internal/status"
)

// Peers is how the control planes of one mesh tell each other what the proxies have that are connected to them.
type Peers interface {
	// Tell says what is so at ours, and that we are there.
	Tell(ctx context.Context, report []byte) error
	// Others gives what the others have said who are there, those last who may be gone by now.
	Others(ctx context.Context) ([][]byte, error)
}

const (
	// peersEvery is how often something new is told and asked for. Both go before a change is called late.
	peersEvery = time.Second
	// peersAlive is how often it is told that we are there.
	peersAlive = 5 * time.Second
)

// exchange is how each control plane knows what is so at the others: whichever comes to lead must not begin by denying it.
type exchange struct {
	c     *Control
	peers Peers
	wake  func() // when others have said something else

	last  []byte    // owned by run: what was told
	at    time.Time // owned by run: and when
	heard [][]byte  // owned by run: what the others said

	mu      sync.Mutex // guards below
	own     []byte     // our report
	reports []*status.Report
}

// report notes what is so at ours.
func (e *exchange) report(r status.Report) {
	data, err := r.Encode()
	if err != nil {
		e.c.conf.Log.Error("what proxies have is not told", "error", err)
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.own = data
}

// told is what the others have said.
func (e *exchange) told() []*status.Report {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.reports
}

// run exchanges reports until ctx ends.
func (e *exchange) run(ctx context.Context) error {
	complaint := ""
	for sleep(ctx, nil, peersEvery) {
		err := errors.Join(e.tell(ctx), e.ask(ctx))
		switch {
		case err == nil:
			complaint = ""
		case ctx.Err() == nil && err.Error() != complaint:
			complaint = err.Error()
			e.c.conf.Log.Warn("control planes do not hear of each other's proxies", "error", err)
		}
	}
	return nil
}

func (e *exchange) tell(ctx context.Context) error {
	e.mu.Lock()
	own := e.own
	e.mu.Unlock()
	if own == nil || bytes.Equal(own, e.last) && time.Since(e.at) < peersAlive {
		return nil
	}
	if err := e.peers.Tell(ctx, own); err != nil {
		return err
	}
	e.last, e.at = own, time.Now()
	return nil
}

// ask finds out what the others say. Without an answer what was known stays known.
func (e *exchange) ask(ctx context.Context) error {
	all, err := e.peers.Others(ctx)
	if err != nil || slices.EqualFunc(all, e.heard, bytes.Equal) {
		return err
	}
	reports := make([]*status.Report, 0, len(all))
	for _, data := range all {
		r, err := status.DecodeReport(data)
		if err != nil {
			return err
		}
		reports = append(reports, r)
	}
	e.heard = all
	e.hear(reports)
	return nil
}

func (e *exchange) hear(reports []*status.Report) {
	e.mu.Lock()
	e.reports = reports
	e.mu.Unlock()
	e.wake()
}
