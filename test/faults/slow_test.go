package faults

import (
	"encoding/json"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

// slow: consumers that read a byte a second cost a window of memory each, and neighbours of the same tunnel nothing.
func (m *mesh) slow(t *testing.T) {
	const consumers, window = 8, 4 << 20
	var alone, beside []float64
	m.fetch(t) // tunnels and buffers are there
	before := m.memory(t, "ztunnel")
	for range 3 {
		alone = append(alone, m.fetch(t))
		stop := m.sip(t, consumers)
		beside = append(beside, m.fetch(t))
		for pod, rss := range m.memory(t, "ztunnel") {
			if grown := rss - before[pod]; grown > consumers*window+(16<<20) {
				t.Errorf("%s grew by %d MiB for %d slow consumers, want at most a window of 4 MiB each", pod, grown>>20, consumers)
			}
		}
		stop()
	}
	ratio := slices.Max(beside) / slices.Max(alone)
	t.Logf("a neighbour's %.0f MiB/s alone, %.0f beside %d slow consumers: %.2f", slices.Max(alone), slices.Max(beside), consumers, ratio)
	if ratio < 0.8 { // the figure is 0.95; two busy cores tell no finer
		t.Errorf("a neighbour has %.2f of its throughput", ratio)
	}
}

// fetch is the MiB/s of one connection.
func (m *mesh) fetch(t *testing.T) float64 {
	t.Helper()
	out := m.Run(t, "exec", "-n", "load", "deploy/client", "--", "/ambit/bin/ambit-sample", "load", "fetch", "-mib="+strconv.Itoa(either(128, 1024)), "server:9000")
	var p struct{ MiB, Seconds float64 }
	if err := json.Unmarshal([]byte(out), &p); err != nil {
		t.Fatalf("fetch says %q: %v", out, err)
	}
	return p.MiB / p.Seconds
}

// sip starts slow consumers, once they have what the windows hold.
func (m *mesh) sip(t *testing.T, n int) (stop func()) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := m.Command(t.Context(), "exec", "-i", "-n", "load", "deploy/client", "--", "/ambit/bin/ambit-sample", "load", "sip", "-n="+strconv.Itoa(n), "server:9000")
	cmd.Stdin = r
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	time.Sleep(2 * time.Second) // they fill the windows
	return func() {
		_ = w.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("slow consumers: %v", err)
		}
	}
}
