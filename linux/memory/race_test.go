//go:build race

package memory

// watched tells that the race detector runs, which keeps memory of its own for all that was ever touched.
const watched = true
