package delta

import (
	"slices"
	"strconv"
)

// Status tells how far a subscriber is.
type Status struct {
	// Sent and Acked are nonces, "" for none; they are equal when the subscriber has taken everything in.
	Sent, Acked string
	// Nack is why the subscriber last refused a response; "" once it has nothing that it refused.
	Nack string
	// Outstanding tells that a response waits for its answer.
	Outstanding bool
	// Held is how many resources it has.
	Held int
	// Behind names some of those that it was sent last and has not taken in: it refused them, or has not answered yet.
	Behind []string
}

// mostBehind bounds how many are named.
const mostBehind = 8

// Status reports how far the subscriber is.
func (s *Server) Status() Status {
	return Status{Sent: nonce(s.nonce), Acked: nonce(s.acked), Nack: s.nack, Outstanding: s.awaiting, Held: len(s.held), Behind: s.behind()}
}

func (s *Server) behind() []string {
	if !s.awaiting && s.refused == 0 {
		return nil
	}
	var names []string
	for name := range s.held {
		if _, accepted := s.Holding(name); !accepted {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names[:min(len(names), mostBehind)]
}

func nonce(n uint64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatUint(n, 10)
}

// Refuses tells whether the subscriber holds a resource that came in a response which it refused.
func (s *Server) Refuses(name string) bool { return s.held[name].refused }

// Holding tells which version of a resource the subscriber was last sent, "" for none, and whether it accepted it.
func (s *Server) Holding(name string) (version string, accepted bool) {
	h, ok := s.held[name]
	if !ok {
		return "", false
	}
	return h.version, !h.refused && !(s.awaiting && h.nonce == s.nonce && h.nonce > 0)
}
