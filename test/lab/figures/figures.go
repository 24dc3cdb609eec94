// Package figures is what programs in pods tell those who started them, as lines of JSON.
package figures

import "time"

// Server is what reached a server since it started.
type Server struct{ Conns, Bytes, Open int64 }

// Bulk is a transfer of many bytes.
type Bulk struct {
	Bytes int64
	Took  time.Duration
}

// Trips are many small exchanges, one connection each or all on the same ones.
type Trips struct {
	Count     int
	Took      time.Duration
	Min       time.Duration
	P50, P99  time.Duration
	P999, Max time.Duration
}

// Answer is what became of one connection that asked for an echo.
type Answer struct {
	// Outcome is "ok", or at which step it ended: "connect", "write", "read".
	Outcome string
	Error   string `json:",omitempty"`
	Took    time.Duration
}

// Event is a change that a watching client saw.
type Event struct {
	// What: "open" (the held connection carries bytes), "cut" (no more), "allowed" and "refused" (new connections).
	What string
	At   time.Time
	Why  string `json:",omitempty"`
}
