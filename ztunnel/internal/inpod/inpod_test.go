package inpod

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/ambit-mesh/ambit/api/zds"
	"github.com/ambit-mesh/ambit/internal/testkit/netnstest"
	"github.com/ambit-mesh/ambit/linux/netns"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// agent is the other end: it speaks the protocol by hand.
type agent struct {
	t *testing.T
	l *net.UnixListener
	c *net.UnixConn
}

func newAgent(t *testing.T) *agent {
	netnstest.NothingLeft(t)
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Net: "unixpacket", Name: filepath.Join(t.TempDir(), "z")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return &agent{t: t, l: l}
}

// accept takes a proxy's connection and its hello.
func (a *agent) accept() {
	a.t.Helper()
	c, err := a.l.AcceptUnix()
	if err != nil {
		a.t.Fatal(err)
	}
	a.c = c
	b := make([]byte, 100)
	n, err := c.Read(b)
	if err != nil {
		a.t.Fatal(err)
	}
	var hello zds.ZdsHello
	if err := proto.Unmarshal(b[:n], &hello); err != nil || hello.Version != zds.Version_V1 {
		a.t.Fatalf("hello %v, %v", &hello, err)
	}
}

// ask sends a request, with a namespace if ns is not nil, and gives the error of the answer.
func (a *agent) ask(req *zds.WorkloadRequest, ns *netns.Namespace) string {
	a.t.Helper()
	b, err := proto.Marshal(req)
	if err != nil {
		a.t.Fatal(err)
	}
	var oob []byte
	if ns != nil {
		oob = unix.UnixRights(int(ns.File().Fd()))
	}
	if _, _, err := a.c.WriteMsgUnix(b, oob, nil); err != nil {
		a.t.Fatal(err)
	}
	answer := make([]byte, 4096)
	n, err := a.c.Read(answer)
	if err != nil {
		a.t.Fatal(err)
	}
	var resp zds.WorkloadResponse
	if err := proto.Unmarshal(answer[:n], &resp); err != nil {
		a.t.Fatal(err)
	}
	return resp.GetAck().GetError()
}

func add(uid string) *zds.WorkloadRequest {
	return &zds.WorkloadRequest{Payload: &zds.WorkloadRequest_Add{Add: &zds.AddWorkload{
		Uid: uid, WorkloadInfo: &zds.WorkloadInfo{Name: uid, Namespace: "default", ServiceAccount: "sa"},
	}}}
}

func del(uid string) *zds.WorkloadRequest {
	return &zds.WorkloadRequest{Payload: &zds.WorkloadRequest_Del{Del: &zds.DelWorkload{Uid: uid}}}
}

func keep(uid string) *zds.WorkloadRequest {
	return &zds.WorkloadRequest{Payload: &zds.WorkloadRequest_Keep{Keep: &zds.KeepWorkload{Uid: uid}}}
}

func snapshot() *zds.WorkloadRequest {
	return &zds.WorkloadRequest{Payload: &zds.WorkloadRequest_SnapshotSent{SnapshotSent: &zds.SnapshotSent{}}}
}

// journal notes what happens to pods.
type journal struct {
	mu    sync.Mutex
	lines []string
	news  chan struct{}
	fail  error
}

func (j *journal) note(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf(format, args...))
	select {
	case j.news <- struct{}{}:
	default:
	}
}

func (j *journal) start(_ context.Context, p Pod) (func(), error) {
	j.mu.Lock()
	fail := j.fail
	j.mu.Unlock()
	if fail != nil {
		return nil, fail
	}
	j.note("start %s", p.UID)
	return func() { j.note("stop %s", p.UID) }, nil
}

func (j *journal) has(line string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Contains(j.lines, line)
}

func (j *journal) await(t *testing.T, line string) {
	t.Helper()
	for !j.has(line) {
		select {
		case <-j.news:
		case <-t.Context().Done():
			t.Fatalf("%q never happened", line)
		}
	}
}

func run(t *testing.T, a *agent, j *journal) (c *Client, synced chan struct{}) {
	synced = make(chan struct{})
	c = New(Config{Socket: a.l.Addr().String(), Start: j.start, Synced: func() { close(synced) }, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return c, synced
}

func TestFollowsTheAgent(t *testing.T) {
	netnstest.Need(t)
	a, j := newAgent(t), &journal{news: make(chan struct{}, 1)}
	c, synced := run(t, a, j)
	a.accept()
	one, two := netnstest.New(t), netnstest.New(t)
	for what, why := range map[string]string{
		"first pod":         a.ask(add("1"), one),
		"same pod again":    a.ask(add("1"), one),
		"second pod":        a.ask(add("2"), two),
		"snapshot":          a.ask(snapshot(), nil),
		"deleting a ghost":  a.ask(del("9"), nil),
		"deleting a pod":    a.ask(del("2"), nil),
		"a new namespace":   a.ask(add("1"), two),
		"a descriptor more": a.ask(keep("1"), one),
	} {
		if why != "" {
			t.Errorf("%s: refused: %s", what, why)
		}
	}
	<-synced
	j.await(t, "stop 2")
	j.await(t, "stop 1")
	if pods := c.Pods(); len(pods) != 1 || pods[0].UID != "1" || pods[0].NS.ID() != two.ID() {
		t.Errorf("pods %+v, want 1 in its new namespace", pods)
	}
	if why := a.ask(add("3"), nil); why == "" {
		t.Error("a pod without a namespace was taken")
	}
	j.mu.Lock()
	j.fail = errors.New("port in use")
	j.mu.Unlock()
	if why := a.ask(add("4"), one); why != "proxy of pod default/4: port in use" {
		t.Errorf("failed start: %q", why)
	}
}

func TestReconnectKeepsWhatIsNamed(t *testing.T) {
	netnstest.Need(t)
	a, j := newAgent(t), &journal{news: make(chan struct{}, 1)}
	c, _ := run(t, a, j)
	a.accept()
	ns := netnstest.New(t)
	for _, uid := range []string{"kept", "named", "gone"} {
		a.ask(add(uid), ns)
	}
	a.ask(snapshot(), nil)
	a.c.Close()
	a.accept()
	a.ask(add("named"), ns)
	a.ask(keep("kept"), nil)
	if j.has("stop gone") {
		t.Error("a pod was stopped before the snapshot ended")
	}
	a.ask(snapshot(), nil)
	j.await(t, "stop gone")
	if n := len(c.Pods()); n != 2 || j.has("stop kept") || j.has("stop named") {
		t.Errorf("%d pods, journal %v", n, j.lines)
	}
}

// A packet of foreign bytes ends the connection at worst.
func FuzzPacket(f *testing.F) {
	ok, err := proto.Marshal(add("1"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(ok)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 || len(b) > 2*maxPacket {
			return
		}
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fds[0])
		file := os.NewFile(uintptr(fds[1]), "pair")
		c, err := net.FileConn(file)
		file.Close()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := unix.Write(fds[0], b); err != nil {
			t.Fatal(err)
		}
		if _, ns, err := receive(c.(*net.UnixConn)); err == nil && ns != nil {
			t.Error("a descriptor out of nothing")
		}
	})
}
