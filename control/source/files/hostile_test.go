package files

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/collection"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// run runs a source until the returned function is called.
func run(t *testing.T, c Config) (s *Source, stop func()) {
	t.Helper()
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	<-s.Store().Objects.Services.Synced()
	return s, stop
}

func has(s *Source, key string) bool { _, ok := s.Store().Objects.Services.Get(key); return ok }

// eventually polls: what happens to files is told by nobody else than the source under test.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func put1(t *testing.T, path, text string) {
	t.Helper()
	if err := put(path, []byte(text), os.Rename); err != nil {
		t.Fatal(err)
	}
}

const denial = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: no, namespace: a}\nspec: {action: DENY, rules: [{from: [{source: {namespaces: [bad]}}]}]}\n"

// What a file said before it broke is in force after a restart, whether it broke before or, for policies, while nobody
// looked. What was taken away meanwhile is not brought back.
func TestBrokenFilesOverARestart(t *testing.T) {
	dir, keep := t.TempDir(), filepath.Join(t.TempDir(), "kept")
	web, pol, gone := filepath.Join(dir, "a/web.yaml"), filepath.Join(dir, "pol.yaml"), filepath.Join(dir, "gone.yaml")
	put1(t, web, service("a", "web", "one"))
	put1(t, pol, denial)
	put1(t, gone, strings.ReplaceAll(denial, "name: no", "name: gone"))
	s, stop := run(t, Config{Dir: dir, Kept: keep})
	put1(t, web, "kind: [")
	eventually(t, "web.yaml refused", func() bool { return len(s.Refused()) == 1 })
	stop()
	put1(t, pol, "spec: broken while nobody looked")
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}

	s, stop = run(t, Config{Dir: dir, Kept: keep})
	_, ok := s.Store().Objects.AuthorizationPolicies.Get("a/no")
	if !ok || !has(s, "a/web") {
		t.Errorf("after a restart: policy %v, service %v", ok, has(s, "a/web"))
	}
	if _, back := s.Store().Objects.AuthorizationPolicies.Get("a/gone"); back {
		t.Error("a policy that was removed is back")
	}
	ps := s.Problems()
	if len(ps) != 2 || ps[0].File != "a/web.yaml" || ps[1].File != "pol.yaml" || len(ps[1].Kept) != 1 || ps[1].Kept[0].Key != "a/no" || ps[1].Since.IsZero() {
		t.Errorf("problems %+v", ps)
	}
	put1(t, pol, strings.ReplaceAll(denial, "bad", "worse"))
	put1(t, web, service("a", "web", "two"))
	eventually(t, "good again", func() bool { return len(s.Refused()) == 0 })
	stop()
	if left, _ := filepath.Glob(filepath.Join(keep, "a/*")); len(left) != 0 {
		t.Errorf("still kept: %v", left)
	}
	err := filepath.WalkDir(keep, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if info, err := d.Info(); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v: Secrets may be in it", path, info.Mode())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A file that is written where it is, with pauses, is never seen as what it is in between.
func TestAHalfWrittenFileTakesNothingAway(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "all.yaml")
	put1(t, path, service("a", "x", "v1")+"---\n"+service("a", "y", "v1"))
	s, _ := run(t, Config{Dir: dir})
	var lost atomic.Int32
	stop := s.Store().Objects.Services.Watch(func(es []collection.Event[*corev1.Service]) {
		for _, e := range es {
			if e.New == nil {
				lost.Add(1)
			}
		}
	})
	defer stop()
	f, err := os.Create(path) // empty now
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{service("a", "x", "v2") + "---\n", service("a", "y", "v2"), "---\n" + service("a", "z", "v2")} {
		time.Sleep(300 * time.Millisecond) // the writer's pause
		if _, err := f.WriteString(part); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the whole file", func() bool { return has(s, "a/z") })
	if lost.Load() != 0 {
		t.Errorf("%d services were withdrawn in between", lost.Load())
	}
	// What it really does not say any more goes.
	if err := os.WriteFile(path, []byte(service("a", "x", "v3")), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "y is gone", func() bool { return !has(s, "a/y") && has(s, "a/x") })
}

// A directory that goes away, or an empty one in its place, takes nothing with it; when it is back it counts again.
func TestTheDirectoryGoesAway(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "objects")
	put1(t, filepath.Join(dir, "web.yaml"), service("a", "web", "v1"))
	s, _ := run(t, Config{Dir: dir})
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	why := func(text string) func() bool {
		return func() bool {
			ps := s.Problems()
			return len(ps) == 1 && ps[0].File == "." && strings.Contains(ps[0].Why, text) && len(ps[0].Kept) == 1
		}
	}
	eventually(t, "told that it is gone", why("is gone"))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	eventually(t, "told that it is another", why("without any object"))
	if !has(s, "a/web") {
		t.Error("its service was withdrawn")
	}
	put1(t, filepath.Join(dir, "web.yaml"), service("a", "web", "v2"))
	put1(t, filepath.Join(dir, "more.yaml"), service("a", "more", "v2"))
	eventually(t, "back", func() bool { return has(s, "a/more") && len(s.Problems()) == 0 })
	put1(t, filepath.Join(dir, "last.yaml"), service("a", "last", "v2"))
	eventually(t, "followed again", func() bool { return has(s, "a/last") })
}

// F18 for files: slow and failing reads withdraw nothing, and all is right again soon after they end.
func TestF18FailingReads(t *testing.T) {
	dir := t.TempDir()
	for i := range 20 {
		put1(t, filepath.Join(dir, fmt.Sprintf("%d.yaml", i)), service("a", fmt.Sprint("s", i), "v1"))
	}
	var bad atomic.Bool
	var n atomic.Int64
	s, _ := run(t, Config{Dir: dir, Read: func(path string) ([]byte, error) {
		if bad.Load() && n.Add(1)%2 == 0 {
			return nil, syscall.EIO
		}
		if bad.Load() {
			time.Sleep(5 * time.Millisecond)
		}
		return readFile(path)
	}})
	var lost atomic.Int32
	stop := s.Store().Objects.Services.Watch(func(es []collection.Event[*corev1.Service]) {
		for _, e := range es {
			if e.New == nil {
				lost.Add(1)
			}
		}
	})
	defer stop()
	bad.Store(true)
	for i := range 20 {
		put1(t, filepath.Join(dir, fmt.Sprintf("%d.yaml", i)), service("a", fmt.Sprint("s", i), "v2"))
	}
	eventually(t, "some reads failed", func() bool { return len(s.Refused()) > 3 })
	bad.Store(false)
	begin := time.Now()
	eventually(t, "all read", func() bool {
		for i := range 20 {
			if svc, _ := s.Store().Objects.Services.Get(fmt.Sprint("a/s", i)); svc == nil || svc.Spec.Selector["app"] != "v2" {
				return false
			}
		}
		return len(s.Refused()) == 0
	})
	t.Logf("caught up after %v; %d withdrawn", time.Since(begin), lost.Load())
	if lost.Load() != 0 {
		t.Errorf("%d services were withdrawn", lost.Load())
	}
}

// A read that hangs holds up one file for a while, and the others hardly.
func TestHangingReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := &Source{dir: "/x", hanging: map[string]chan struct{}{}, conf: config{Log: slog.New(slog.DiscardHandler), Read: func(path string) ([]byte, error) {
			if strings.HasPrefix(filepath.Base(path), "dead") {
				<-release
			}
			return []byte("ok"), nil
		}}}
		begin := time.Now()
		for i := range 1000 {
			if _, err := s.read(fmt.Sprint("dead", i)); err == nil {
				t.Fatal("read")
			}
			if got, err := s.read("alive"); len(s.hanging) < mostHanging && (err != nil || string(got) != "ok") {
				t.Fatalf("alive: %q %v", got, err)
			}
		}
		if took := time.Since(begin); took > 20*time.Second || len(s.hanging) > mostHanging {
			t.Errorf("1000 dead files take %v and hold %d reads", took, len(s.hanging))
		}
		close(release)
		synctest.Wait()
		for i := range mostHanging {
			if _, err := s.read(fmt.Sprint("dead", i)); err != nil {
				t.Errorf("after it answered: %v", err)
			}
		}
	})
}

// UI-07: what is no file of objects, or a bomb, is refused in little time and memory, and the rest goes on.
func TestUI07HostileFiles(t *testing.T) {
	dir := t.TempDir()
	put1(t, filepath.Join(dir, "good.yaml"), service("a", "web", "v1"))
	s, _ := run(t, Config{Dir: dir})
	bomb := "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'n'; c++ {
		bomb += fmt.Sprintf("%c: &%c [%s]\n", c, c, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c,", c-1), 10), ","))
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	begin := cpu(t)
	put1(t, filepath.Join(dir, "bomb.yaml"), bomb)
	put1(t, filepath.Join(dir, "deep.yaml"), "a: "+strings.Repeat("[", 100000))
	if err := os.Symlink("loop2.yaml", filepath.Join(dir, "loop1.yaml")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("loop1.yaml", filepath.Join(dir, "loop2.yaml")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(".", filepath.Join(dir, "self")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe.yaml"), 0o600); err != nil {
		t.Fatal(err)
	}
	huge, err := os.Create(filepath.Join(dir, "huge.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(huge.Truncate(1<<33), huge.Close()); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"bomb.yaml": "aliases expand to more than", "deep.yaml": "deep.yaml", "loop1.yaml": "too many levels of symbolic links",
		"loop2.yaml": "too many levels", "pipe.yaml": "is not a regular file", "huge.yaml": "split the file",
	}
	eventually(t, "all refused", func() bool {
		got := s.Refused()
		for _, r := range got {
			if !strings.Contains(r.Err.Error(), want[r.File]) || want[r.File] == "" {
				t.Fatalf("%s: %v", r.File, r.Err)
			}
		}
		return len(got) == len(want)
	})
	took := cpu(t) - begin
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; took > 2*time.Second || grown > 256<<20 {
		t.Errorf("took %v and %d MiB of garbage", took, grown>>20)
	}
	put1(t, filepath.Join(dir, "more.yaml"), service("a", "more", "v1"))
	eventually(t, "the rest goes on", func() bool { return has(s, "a/more") && has(s, "a/web") })
}

// cpu is the processor time that this process has used: other processes do not lengthen it.
func cpu(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// CA-17: what is wrong with a Secret is told without what it holds.
func TestBrokenSecretIsNotQuoted(t *testing.T) {
	dir := t.TempDir()
	var logs strings.Builder
	s, stop := run(t, Config{Dir: dir, Log: slog.New(slog.NewTextHandler(&logs, nil))})
	for name, text := range map[string]string{
		"1.yaml": "data: {ca-key.pem: SECRETBYTES!!!}",
		"2.yaml": "data: {ca-key.pem: [SECRETBYTES]}",
		"3.yaml": "stringData: {ca-key.pem: {a: SECRETBYTES}}",
		"4.yaml": "data: SECRETBYTES",
		"5.yaml": "type: {x: SECRETBYTES}",
		"6.yaml": "immutable: SECRETBYTES",
		"7.yaml": "data: {a: c2VjcmV0}\nSECRETBYTES",
		"8.yaml": "data: {a: !!int SECRETBYTES}",
	} {
		put1(t, filepath.Join(dir, name), "apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: a}\n"+text+"\n")
	}
	eventually(t, "all refused", func() bool { return len(s.Refused()) == 8 })
	stop()
	for _, r := range s.Refused() {
		if strings.Contains(r.Err.Error(), "SECRETBYTES") {
			t.Errorf("quoted: %v", r.Err)
		}
	}
	if strings.Contains(logs.String(), "SECRETBYTES") {
		t.Errorf("logged: %s", logs.String())
	}
}
