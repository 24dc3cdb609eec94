package access

import (
	"testing"
	"time"
)

// RS-11: lines of a flood are held back, and their number is told.
func TestRS11LinesOfAFloodAreHeldBack(t *testing.T) {
	now := time.Unix(0, 0)
	l := &Limit{Burst: 10, Rate: 5, Now: func() time.Time { return now }}
	written := 0
	for range 1000 {
		if ok, _ := l.Admit(); ok {
			written++
		}
	}
	if written != 10 {
		t.Errorf("%d lines of a burst, want 10", written)
	}
	now = now.Add(time.Second)
	if ok, held := l.Admit(); !ok || held != 990 {
		t.Errorf("a second later: %v, %d held back; want 990", ok, held)
	}
	for range 4 {
		if ok, held := l.Admit(); !ok || held != 0 {
			t.Errorf("%v, %d held back", ok, held)
		}
	}
	if ok, _ := l.Admit(); ok {
		t.Error("a sixth line in a second at five a second")
	}
}
