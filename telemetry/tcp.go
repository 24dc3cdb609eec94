package telemetry

import (
	"bufio"
	"sync"
	"sync/atomic"
	"time"
)

// maxSeries bounds the label sets that connections can create, and maxForeign those of clients that only speak for
// themselves; above it, new ones count under "unknown" labels. A label set costs about 2 KiB and at most four series.
const (
	maxSeries  = 4096
	maxForeign = 1024
)

// TCP counts connections and their bytes. A connection costs one look-up at each end of it.
type TCP struct {
	max  int
	open [2]atomic.Int64 // sockets, by direction

	mu      sync.RWMutex // guards below
	series  map[labels]*series
	foreign int // how many of them are

	liveMu sync.Mutex // guards below
	live   map[*counted]struct{}
}

// series are the counters of a label set.
type series struct {
	opened, closed, failed, sent, received atomic.Uint64
	users                                  atomic.Int64 // connections that will count here
	touched, scraped                       atomic.Int64 // when it last changed and was last told, in Unix nanoseconds
	text                                   atomic.Pointer[string]
	foreign                                bool
}

// Traffic tells the bytes that a connection has carried so far, as the client sees them.
type Traffic interface {
	Carried() (sent, received uint64)
}

// counted is an open connection, and what of its bytes was added to its series.
type counted struct {
	traffic        Traffic
	to             *series
	sent, received uint64
}

func newTCP(most int) *TCP {
	return &TCP{max: most, series: map[labels]*series{}, live: map[*counted]struct{}{}}
}

// Opened counts a connection that is open now, and its bytes while they flow; traffic may be nil. The returned function
// counts its end, once, with the record as it is then.
func (t *TCP) Opened(r *Record, traffic Traffic) (closed func()) {
	c := &counted{traffic: traffic, to: t.use(r, NoFlag)}
	c.to.opened.Add(1)
	t.open[r.Direction].Add(1)
	if traffic != nil {
		t.liveMu.Lock()
		t.live[c] = struct{}{}
		t.liveMu.Unlock()
	}
	return sync.OnceFunc(func() {
		t.liveMu.Lock()
		delete(t.live, c)
		c.count(r.Sent, r.Received)
		t.liveMu.Unlock()
		t.ended(r, c.to)
		c.to.users.Add(-1)
		t.open[r.Direction].Add(-1)
	})
}

// count adds what is new of a connection's bytes. Istio's source reporter counts the request direction as received, and
// the destination's as well; dashboards rely on it.
func (c *counted) count(sent, received uint64) {
	c.to.received.Add(max(sent, c.sent) - c.sent)
	c.to.sent.Add(max(received, c.received) - c.received)
	c.sent, c.received = max(sent, c.sent), max(received, c.received)
	c.to.touch()
}

// ended counts the end of a connection whose beginning was counted in opened.
func (t *TCP) ended(r *Record, opened *series) {
	s := opened
	flag := r.Flag
	if flag == "" && r.Err != "" {
		flag = ConnectFailed
	}
	if flag != "" && flag != NoFlag {
		s = t.use(r, flag)
		defer s.users.Add(-1)
		s.failed.Add(1)
	}
	s.closed.Add(1)
	s.touch()
}

// Failed counts a connection that never carried anything. One that was refused before anything was known of it counts
// as failed alone.
func (t *TCP) Failed(r *Record) {
	if !r.Early {
		s := t.use(r, NoFlag)
		s.opened.Add(1)
		s.touch()
		t.ended(r, s)
		s.users.Add(-1)
		return
	}
	flag := r.Flag
	if flag == "" {
		flag = ConnectFailed
	}
	s := t.use(r, flag)
	s.failed.Add(1)
	s.touch()
	s.users.Add(-1)
}

func (s *series) touch() { s.touched.Store(time.Now().UnixNano()) }

// use finds the series of a connection, which is kept until users is taken back.
func (t *TCP) use(r *Record, flag Flag) *series {
	l := labelsOf(r, flag)
	t.mu.RLock()
	s := t.series[l]
	if s != nil {
		s.users.Add(1)
	}
	t.mu.RUnlock()
	if s != nil {
		return s
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	foreign := r.Src.Foreign
	if s = t.series[l]; s == nil && (len(t.series) >= t.max || foreign && t.foreign >= t.max/(maxSeries/maxForeign)) {
		l, foreign = l.coarse(), false
		s = t.series[l]
	}
	if s == nil {
		s = &series{foreign: foreign}
		if foreign {
			t.foreign++
		}
		s.touch()
		t.series[l] = s
	}
	s.users.Add(1)
	return s
}

// unscraped is how long the counts of a workload that is gone wait for a scrape, and of one that we do not know for more.
const unscraped = 10 * time.Minute

// Release forgets what was counted for workloads that are gone, once it was scraped.
func (t *TCP) Release(alive func(namespace, workload string) bool) {
	gone := func(namespace, workload string) bool { return workload != unknown && !alive(namespace, workload) }
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	for l, s := range t.series {
		touched := s.touched.Load()
		told := s.scraped.Load() > touched && !s.foreign || now.Sub(time.Unix(0, touched)) > unscraped
		if told && s.users.Load() == 0 && (gone(l[labelSourceNS], l[labelSourceWorkload]) || gone(l[labelDestNS], l[labelDestWorkload])) {
			delete(t.series, l)
			if s.foreign {
				t.foreign--
			}
		}
	}
}

// write writes the families as they are at this moment.
func (t *TCP) write(b *bufio.Writer, open bool) {
	t.liveMu.Lock()
	for c := range t.live {
		c.count(c.traffic.Carried())
	}
	t.liveMu.Unlock()
	now := time.Now().UnixNano()
	t.mu.RLock()
	all := make([]*series, 0, len(t.series))
	for l, s := range t.series {
		s.scraped.Store(now)
		if s.text.Load() == nil {
			text := l.text()
			s.text.Store(&text)
		}
		all = append(all, s)
	}
	t.mu.RUnlock()
	family := func(name, help string, value func(*series) (n uint64, there bool)) {
		writeFamily(b, name, "counter", help, open, func(yield func(string, uint64) bool) {
			for _, s := range all {
				if n, there := value(s); there && !yield(*s.text.Load(), n) {
					return
				}
			}
		})
	}
	counter := func(of func(*series) *atomic.Uint64) func(*series) (uint64, bool) {
		return func(s *series) (uint64, bool) { n := of(s).Load(); return n, n > 0 }
	}
	bytes := func(of func(*series) *atomic.Uint64) func(*series) (uint64, bool) {
		return func(s *series) (uint64, bool) { return of(s).Load(), s.opened.Load() > 0 }
	}
	family("istio_tcp_connections_opened", "The total number of TCP connections opened.", counter(func(s *series) *atomic.Uint64 { return &s.opened }))
	family("istio_tcp_connections_closed", "The total number of TCP connections closed.", counter(func(s *series) *atomic.Uint64 { return &s.closed }))
	family("istio_tcp_received_bytes", "The size of total bytes received during request in case of a TCP connection.", bytes(func(s *series) *atomic.Uint64 { return &s.received }))
	family("istio_tcp_sent_bytes", "The size of total bytes sent during response in case of a TCP connection.", bytes(func(s *series) *atomic.Uint64 { return &s.sent }))
	family("istio_tcp_connections_failed", "The total number of TCP connections that failed to establish (unstable).", counter(func(s *series) *atomic.Uint64 { return &s.failed }))
	writeFamily(b, "istio_tcp_sockets_open", "gauge", "The current number of open TCP sockets (unstable).", open, func(yield func(string, uint64) bool) {
		for d, name := range []string{`{reporter="source"}`, `{reporter="destination"}`} {
			if !yield(name, uint64(max(t.open[d].Load(), 0))) {
				return
			}
		}
	})
}
