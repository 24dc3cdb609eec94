package proxy

import (
	"log/slog"
	"sync"
	"time"
)

// Damper lets so many lines a second through, and tells how many it left out. It keeps a flood of refused connections
// from becoming one of log lines; they are counted all the same.
type Damper struct {
	log *slog.Logger

	mu      sync.Mutex // guards below
	since   time.Time
	lines   int
	leftOut int
}

// dampedLines is how many lines a second are written.
const dampedLines = 100

// NewDamper makes one that tells log what it left out.
func NewDamper(log *slog.Logger) *Damper { return &Damper{log: log} }

// pass reports whether a line may be written now.
func (d *Damper) pass() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now := time.Now(); now.Sub(d.since) >= time.Second {
		d.since, d.lines = now, 0
	}
	if d.lines < dampedLines {
		d.lines++
		return true
	}
	if d.leftOut++; d.leftOut == 1 {
		time.AfterFunc(time.Second, d.tell)
	}
	return false
}

// tell says what was left out.
func (d *Damper) tell() {
	d.mu.Lock()
	n := d.leftOut
	d.leftOut = 0
	d.mu.Unlock()
	d.log.Warn("refused connections not written to the log, they came too fast; they are counted", "count", n)
}
