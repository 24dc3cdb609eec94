package zds

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ambit-mesh/ambit/api/zds"
	"github.com/ambit-mesh/ambit/internal/testkit/fakeztunnel"
	"github.com/ambit-mesh/ambit/internal/testkit/netnstest"
	"github.com/ambit-mesh/ambit/linux/netns"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// serve runs a server and waits until proxies can connect.
func serve(t testing.TB, within time.Duration) (*Server, *atomic.Int64) {
	t.Helper()
	dir, err := os.MkdirTemp("", "zds")
	must(t, err)
	var changes atomic.Int64
	s := New(Config{
		Socket: filepath.Join(dir, "z"), Log: slog.New(slog.DiscardHandler), Changed: func() { changes.Add(1) },
		Trusted: func(context.Context, *netns.Namespace) error { return nil },
	})
	s.within = within
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	wait(t, "the socket", s.Serving)
	return s, &changes
}

// wait polls for what has no event of its own.
func wait(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s did not come", what)
		}
	}
}

// pod makes a workload in a namespace of its own, and the words for it.
func pod(t testing.TB, uid string) (w Workload, words string) {
	t.Helper()
	ns, err := netns.New()
	must(t, err)
	return Workload{UID: uid, Name: "p" + uid, Namespace: "default", ServiceAccount: "sa", NS: ns},
		fakeztunnel.Add(uid, "default", "p"+uid, "sa", ns.Inode())
}

func TestSnapshotThenChanges(t *testing.T) {
	netnstest.Need(t)
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	t.Run("", func(t *testing.T) {
		s, changes := serve(t, deadline)
		one, oneWords := pod(t, "1")
		if err := s.Add(one); !errors.Is(err, ErrNoProxy) {
			t.Fatalf("Add without a proxy = %v", err)
		}
		z := fakeztunnel.Connect(t, s.conf.Socket, fakeztunnel.Yes)
		z.Expect(t, oneWords, "snapshot")
		wait(t, "word of the new proxy", func() bool { return changes.Load() == 1 && s.Connected() == 1 })
		two, twoWords := pod(t, "2")
		again, err := two.NS.Dup()
		must(t, err)
		must(t, s.Add(two))
		two.NS = again
		must(t, s.Add(two)) // the same once more is not sent
		must(t, s.Del("1"))
		must(t, s.Del("1"))
		must(t, s.Del("unknown"))
		z.Expect(t, twoWords, "del 1")
		moved, movedWords := pod(t, "2") // the same pod in another namespace
		must(t, s.Add(moved))
		z.Expect(t, movedWords)
		z.Quiet(t)
	})
}

func TestRefusedPodIsSentAgain(t *testing.T) {
	netnstest.Need(t)
	s, changes := serve(t, deadline)
	w, words := pod(t, "1")
	if err := s.Add(w); !errors.Is(err, ErrNoProxy) {
		t.Fatal(err)
	}
	var refusals atomic.Int64
	z := fakeztunnel.Connect(t, s.conf.Socket, func(told string) (string, bool) {
		if strings.HasPrefix(told, "add") && refusals.Add(1) <= 2 {
			return "no certificate", true
		}
		return "", true
	})
	z.Expect(t, words, "snapshot") // a refusal does not keep the proxy from being ready
	wait(t, "word to try again", func() bool { return changes.Load() == 1 })
	var err error
	w.NS, err = s.workloads["1"].NS.Dup()
	must(t, err)
	var refused *RefusedError
	if err := s.Add(w); !errors.As(err, &refused) || refused.Why != "no certificate" {
		t.Fatalf("Add = %v, want the refusal", err)
	}
	w.NS, err = s.workloads["1"].NS.Dup()
	must(t, err)
	must(t, s.Add(w))
	z.Expect(t, words, words)
	must(t, s.Del("1"))
	z.Expect(t, "del 1")
}

func TestAddsGoToTheNewestDeletesToAll(t *testing.T) {
	netnstest.Need(t)
	s, changes := serve(t, deadline)
	old := fakeztunnel.Connect(t, s.conf.Socket, fakeztunnel.Yes)
	old.Expect(t, "snapshot")
	one, oneWords := pod(t, "1")
	must(t, s.Add(one))
	old.Expect(t, oneWords)
	newer := fakeztunnel.Connect(t, s.conf.Socket, fakeztunnel.Yes)
	newer.Expect(t, oneWords, "snapshot")
	wait(t, "both proxies", func() bool { return s.Connected() == 2 && changes.Load() == 2 })
	two, twoWords := pod(t, "2")
	must(t, s.Add(two))
	newer.Expect(t, twoWords)
	must(t, s.Del("1"))
	newer.Expect(t, "del 1")
	old.Expect(t, "del 1")
	old.Quiet(t)
	// The newest goes: the one before is brought what it missed.
	newer.Conn.Close()
	wait(t, "word that the newest went", func() bool { return changes.Load() == 3 })
	var err error
	two.NS, err = s.workloads["2"].NS.Dup()
	must(t, err)
	must(t, s.Add(two))
	old.Expect(t, twoWords)
}

func TestSilentProxyIsCutOffAndHoldsUpNobody(t *testing.T) {
	netnstest.Need(t)
	const within = 300 * time.Millisecond
	s, _ := serve(t, within)
	old := fakeztunnel.Connect(t, s.conf.Socket, fakeztunnel.Yes)
	old.Expect(t, "snapshot")
	one, oneWords := pod(t, "1")
	must(t, s.Add(one))
	old.Expect(t, oneWords)
	silent := fakeztunnel.Connect(t, s.conf.Socket, func(told string) (string, bool) { return "", told == oneWords || told == "snapshot" })
	silent.Expect(t, oneWords, "snapshot")
	wait(t, "both proxies", func() bool { return s.Connected() == 2 })
	failed := make(chan error, 10)
	start := time.Now()
	for i := range 10 {
		w, _ := pod(t, fmt.Sprint("x", i))
		go func() { failed <- s.Add(w) }()
	}
	wait(t, "a question", func() bool { return len(silent.Heard) > 0 })
	if s.Connected() != 2 || time.Since(start) > within {
		t.Errorf("Connected waits for a silent proxy")
	}
	failedDel := s.Del("1") // the silent one fails, the other is told at once
	old.Expect(t, "del 1")
	if failedDel == nil {
		t.Error("Del = nil though a proxy did not answer")
	}
	for range 10 {
		if err := <-failed; err == nil {
			t.Error("Add = nil though the proxy did not answer")
		}
	}
	if took := time.Since(start); took > 2*within {
		t.Errorf("ten pods waited %v for a silent proxy, want about %v for all together", took, within)
	}
	<-silent.Ended
	w, words := pod(t, "after")
	must(t, s.Add(w))
	old.Expect(t, words)
}

func TestConnectionsThatBreakTheProtocolEnd(t *testing.T) {
	netnstest.Need(t)
	for name, first := range map[string][]byte{
		"no protobuf":  []byte("\xff\xff\xff"),
		"no version":   {},
		"late version": {8, 9},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := serve(t, 200*time.Millisecond)
			c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Net: "unixpacket", Name: s.conf.Socket})
			must(t, err)
			defer c.Close()
			if len(first) > 0 {
				_, err = c.Write(first)
				must(t, err)
			}
			must(t, c.SetReadDeadline(time.Now().Add(5*time.Second)))
			if n, err := c.Read(make([]byte, 10)); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("read %d bytes, %v; want the end", n, err)
			}
			if s.Connected() != 0 {
				t.Error("it counts as connected")
			}
		})
	}
	t.Run("an answer to no question", func(t *testing.T) {
		s, _ := serve(t, deadline)
		z := fakeztunnel.Connect(t, s.conf.Socket, fakeztunnel.Yes)
		z.Expect(t, "snapshot")
		z.Send(t, &zds.WorkloadResponse{Payload: &zds.WorkloadResponse_Ack{Ack: &zds.Ack{}}})
		<-z.Ended
	})
}

// CN-08: a process of another user gets no descriptor. Where tests have only one user the kernel cannot be asked.
func TestForeignUserIsRefused(t *testing.T) {
	for uid, want := range map[uint32]bool{0: true, uint32(os.Geteuid()): true, 1000: os.Geteuid() == 1000, 65534: false} {
		if got := trusted(uid) == nil; got != want {
			t.Errorf("CN-08: user %d trusted = %v, want %v", uid, got, want)
		}
	}
}

func TestSocketIsItsOwnersOnly(t *testing.T) {
	netnstest.Need(t)
	s, _ := serve(t, deadline)
	i, err := os.Stat(s.conf.Socket)
	must(t, err)
	if i.Mode().Perm() != 0o600 {
		t.Errorf("socket has mode %v", i.Mode())
	}
}

// CN-09.
func TestNothingStaysOfAThousandPods(t *testing.T) {
	netnstest.Need(t)
	s, _ := serve(t, deadline)
	z := fakeztunnel.Connect(t, s.conf.Socket, fakeztunnel.Yes)
	z.Expect(t, "snapshot")
	space, err := netns.New()
	must(t, err)
	defer space.Close()
	count := func() (fds, goroutines int) {
		d, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		return len(d), runtime.NumGoroutine()
	}
	fds, goroutines := count()
	for i := range 1000 {
		ns, err := space.Dup()
		must(t, err)
		uid := fmt.Sprint(i)
		must(t, s.Add(Workload{UID: uid, NS: ns}))
		must(t, s.Del(uid))
	}
	if f, g := count(); f > fds+10 || g > goroutines+10 { // the runtime has some of its own
		t.Errorf("CN-09: %d descriptors and %d goroutines after, %d and %d before", f, g, fds, goroutines)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.proxies[0]
	p.turn.Lock()
	defer p.turn.Unlock()
	if len(s.workloads) != 0 || len(p.told) != 0 {
		t.Error("CN-09: the server remembers pods that are gone")
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0xa, 0})
	f.Add([]byte{0xa, 4, 0xa, 2, 'n', 'o'})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseAnswer(b)
		if (err == nil) != (r != nil) || err == nil && r.GetAck() == nil {
			t.Errorf("parseAnswer(%x) = %v, %v", b, r, err)
		}
		if h, err := parseHello(b); (err == nil) != (h != nil) {
			t.Errorf("parseHello(%x) = %v, %v", b, h, err)
		}
	})
}
