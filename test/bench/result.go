package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/test/lab/figures"
)

// afterLoad is the count that stands for the memory after all load.
const afterLoad = -1

type memoryKey struct {
	lane  string
	count int // of idle connections, or afterLoad
}

// result is everything that was measured.
type result struct {
	conf     config
	lanes    []string
	loads    []string
	samples  map[string]map[string][]sample // by load, by lane, in rounds
	memory   map[memoryKey]int64            // of a lane's proxies together
	agents   int64                          // the largest node agent
	times    map[string][]time.Duration
	plugin   figures.Trips
	verified int64
	quiet    noise
	took     time.Duration
}

func newResult(c config, lanes []*lane) *result {
	r := &result{conf: c, samples: map[string]map[string][]sample{}, memory: map[memoryKey]int64{}, times: map[string][]time.Duration{}}
	for _, l := range lanes {
		r.lanes = append(r.lanes, l.name)
	}
	return r
}

func (r *result) add(load, lane string, s sample) {
	if r.samples[load] == nil {
		r.samples[load] = map[string][]sample{}
		r.loads = append(r.loads, load)
	}
	r.samples[load][lane] = append(r.samples[load][lane], s)
}

// has tells whether a lane was measured.
func (r *result) has(lane string) bool { return slices.Contains(r.lanes, lane) }

// column is a figure of a lane in all rounds.
func (r *result) column(load, lane string, f figure) []float64 {
	var all []float64
	for _, s := range r.samples[load][lane] {
		if v, ok := s[f]; ok {
			all = append(all, v)
		}
	}
	return all
}

// ratio is the median of a figure's ratios between two lanes, round by round; 0 if one of them has none.
func (r *result) ratio(load string, f figure, of, to string) float64 {
	a, b := r.column(load, of, f), r.column(load, to, f)
	var all []float64
	for i := range min(len(a), len(b)) {
		if b[i] > 0 {
			all = append(all, a[i]/b[i])
		}
	}
	return median(all)
}

func median(all []float64) float64 {
	if len(all) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(all))
	if len(s)%2 == 1 {
		return s[len(s)/2]
	}
	return (s[len(s)/2-1] + s[len(s)/2]) / 2
}

func quantile(all []time.Duration, q float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(all))
	return s[min(len(s)-1, int(q*float64(len(s))))]
}

// noise is how busy the machine was with other things.
type noise struct {
	loads []float64 // averages of one minute
}

func (n *noise) look() {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return // nobody knows then
	}
	var one float64
	if _, err := fmt.Sscan(string(text), &one); err == nil {
		n.loads = append(n.loads, one)
	}
}

func (n *noise) String() string {
	if len(n.loads) == 0 {
		return "unknown"
	}
	return fmt.Sprintf("load average %.1f before the rounds, %.1f to %.1f during them", n.loads[0], slices.Min(n.loads), slices.Max(n.loads))
}

// machine describes where this was measured.
func machine() string {
	model := "unknown processor"
	if f, err := os.Open("/proc/cpuinfo"); err == nil {
		defer f.Close()
		for in := bufio.NewScanner(f); in.Scan(); {
			if key, value, ok := strings.Cut(in.Text(), ":"); ok && strings.TrimSpace(key) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	release := "unknown"
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		release = unix.ByteSliceToString(u.Release[:])
	}
	release, _, _ = strings.Cut(release, "-")
	return fmt.Sprintf("%d × %s, Linux %s, %s", runtime.NumCPU(), model, release, runtime.Version())
}
