package h2

import (
	"errors"
	"testing"
)

func TestStreamsResetUnansweredUseUpTheirBudget_HB14(t *testing.T) {
	s := server()
	if _, err := s.Feed(cat([]byte(Preface), fr(frameSettings, 0, 0)), nil); err != nil {
		t.Fatal(err)
	}
	next := uint32(1)
	abandon := func(n int) error {
		for range n {
			_, err := s.Feed(cat(fr(frameHeaders, flagEndHeaders, next, request()...), fr(frameReset, 0, next, u32(8)...)), nil)
			if next += 2; err != nil {
				return err
			}
		}
		return nil
	}
	if err := abandon(resetBudget); err != nil {
		t.Fatalf("within the budget: %v", err)
	}
	s.Refill()
	if err := abandon(resetBudget); err != nil {
		t.Fatalf("after a refill: %v", err)
	}
	err := abandon(1)
	if e, ok := errors.AsType[*Error](err); !ok || e.Code != EnhanceYourCalm || e.Why != "too many streams reset before they were answered" {
		t.Errorf("over the budget: %v", err)
	}
}

// An honest client may open and end, or give up, any number of streams, with the window updates that come with them.
func TestHonestStreamsNeverUseUpTheBudget(t *testing.T) {
	s := server()
	if _, err := s.Feed(cat([]byte(Preface), fr(frameSettings, 0, 0)), nil); err != nil {
		t.Fatal(err)
	}
	for i := range uint32(30_000) {
		id := 2*i + 1
		feed := func(b ...[]byte) {
			t.Helper()
			if _, err := s.Feed(cat(b...), nil); err != nil {
				t.Fatalf("stream %d: %v", id, err)
			}
		}
		feed(fr(frameHeaders, flagEndHeaders, id, request()...))
		s.Respond(id, 200, nil, false)
		feed(fr(frameData, 0, id, 'x'), fr(frameWindowUpdate, 0, id, u32(100)...), fr(frameWindowUpdate, 0, 0, u32(100)...))
		s.Consumed(id, 1)
		if i%2 == 0 {
			feed(fr(frameReset, 0, id, u32(8)...))
		} else {
			s.SendEnd(id)
			feed(fr(frameData, flagEndStream, id), fr(frameWindowUpdate, 0, id, u32(100)...))
		}
		s.TakeOut(nil)
	}
	if s.Streams() != 0 {
		t.Errorf("%d streams left", s.Streams())
	}
}
