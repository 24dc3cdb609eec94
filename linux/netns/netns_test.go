package netns_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/ambit-mesh/ambit/internal/testkit/netnstest"
	"github.com/ambit-mesh/ambit/linux/netns"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

func current(t *testing.T) netns.ID {
	t.Helper()
	ns, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	return ns.ID()
}

func TestDoRunsInsideAndComesBack(t *testing.T) {
	ns := netnstest.New(t)
	home := current(t)
	if home == ns.ID() {
		t.Fatal("a new namespace is the old one")
	}
	boom := errors.New("boom")
	err := netns.Do(ns, func() error {
		if got := current(t); got != ns.ID() {
			t.Errorf("inside Do the namespace is %v, want %v", got, ns.ID())
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Errorf("Do = %v, want the function's error", err)
	}
	if got := current(t); got != home {
		t.Errorf("after Do the namespace is %v, want %v", got, home)
	}
	if err := netns.Do(nil, func() error {
		if got := current(t); got != home {
			t.Errorf("Do(nil) runs in %v, want %v", got, home)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

func TestAStayEndsWhereItBegan(t *testing.T) {
	ns, home := netnstest.New(t), current(t)
	stay, err := netns.Enter(ns)
	if err != nil {
		t.Fatal(err)
	}
	inside := current(t)
	elsewhere := make(chan netns.ID)
	go func() { elsewhere <- current(t) }()
	other, left, again := <-elsewhere, stay.Leave(), stay.Leave()
	if inside != ns.ID() || other != home || current(t) != home || !left || again {
		t.Errorf("inside %v, another goroutine %v, left %v, twice %v; the namespaces are %v and %v", inside, other, left, again, ns.ID(), home)
	}
	nowhere, err := netns.Enter(nil)
	if err != nil || nowhere.Leave() || current(t) != home {
		t.Errorf("a stay in no namespace leads somewhere: %v", err)
	}
}

func TestFunctionThatLeavesIsAnError(t *testing.T) {
	ns := netnstest.New(t)
	if err := netns.Do(ns, func() error { runtime.Goexit(); return nil }); err == nil {
		t.Error("Do of a function that exits its goroutine = nil, want an error")
	}
}

func TestMountedNamespaceIsTheSame(t *testing.T) {
	ns := netnstest.New(t)
	path := filepath.Join(t.TempDir(), "pod")
	if err := ns.Mount(path); err != nil {
		t.Fatal(err)
	}
	again, err := netns.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if again.ID() != ns.ID() {
		t.Errorf("opened %v, mounted %v", again.ID(), ns.ID())
	}
	dup, err := ns.Dup()
	if err != nil {
		t.Fatal(err)
	}
	defer dup.Close()
	if dup.ID() != ns.ID() {
		t.Errorf("duplicate is %v, want %v", dup.ID(), ns.ID())
	}
	for range 2 {
		if err := netns.Unmount(path); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Unmount: %v, want no file", err)
	}
}

func TestOtherFilesAreRefused(t *testing.T) {
	for _, path := range []string{"/dev/null", "/proc/self/ns/mnt", t.TempDir()} {
		if ns, err := netns.Open(path); err == nil {
			ns.Close()
			t.Errorf("Open(%s) succeeded, want an error", path)
		}
	}
}
