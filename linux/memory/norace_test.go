//go:build !race

package memory

const watched = false
