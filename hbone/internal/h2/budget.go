package h2

// What a peer may make us do without progress, between two calls of Refill. The figures leave room for any honest
// peer: a hundred abandoned requests and a thousand control frames a second.
const (
	resetBudget   = 1000
	controlBudget = 10000

	// bytesPerUpdate: for this much data sent, a peer may send one control frame more (its window updates).
	bytesPerUpdate = 1024
	// framesPerStream: a stream that ended well allows this many more (its late window updates).
	framesPerStream = 4
	// maxControlOut bounds what waits to be sent in answer to control frames, to a peer that does not read.
	maxControlOut = 64 << 10
)

// budget bounds work that brings no progress: rapid resets (CVE-2023-44487), streams that we must reset
// (CVE-2025-8671), and floods of cheap frames (CVE-2019-9511 and following).
type budget struct{ resets, control int }

func newBudget() budget { return budget{resets: resetBudget, control: controlBudget} }

func (b *budget) reset() *Error {
	if b.resets--; b.resets < 0 {
		return connError(EnhanceYourCalm, "too many streams reset before they were answered")
	}
	return nil
}

func (b *budget) frame() *Error {
	if b.control--; b.control < 0 {
		return connError(EnhanceYourCalm, "too many control frames")
	}
	return nil
}

func (b *budget) earn(n int) { b.control = min(b.control+n, 2*controlBudget) }

// Refill renews what the peer may spend. Whoever has a clock calls it every ten seconds.
func (c *Conn) Refill() { c.budget = newBudget() }
