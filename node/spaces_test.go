package node

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/ambit-mesh/ambit/internal/testkit/netnstest"
	"github.com/ambit-mesh/ambit/linux/link"
	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/node/internal/objects"
	"github.com/ambit-mesh/ambit/node/internal/procns"
)

func TestPodsByProcess(t *testing.T) {
	netnstest.Need(t)
	const uid, stranger = "01402a5c-0aec-4835-b6f8-b49bf59d4350", "2ec35af8-605b-4f49-8834-cd998fa26128"
	ip := netip.MustParseAddr("10.0.0.7")
	proc, dir := t.TempDir(), t.TempDir()
	with := func() *netns.Namespace {
		ns := netnstest.New(t)
		if err := link.AddAddr(ns, "lo", netip.PrefixFrom(ip, 32)); err != nil {
			t.Fatal(err)
		}
		return ns
	}
	mount := func(ns *netns.Namespace, path string) string {
		if err := ns.Mount(path); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := netns.Unmount(path); err != nil {
				t.Error(err)
			}
		})
		return path
	}
	process := func(pid int, of string, ns *netns.Namespace) {
		at := filepath.Join(proc, strconv.Itoa(pid))
		if err := errors.Join(os.MkdirAll(filepath.Join(at, "ns"), 0o755),
			os.WriteFile(filepath.Join(at, "cgroup"), []byte("0::/../pod"+of+"/c\n"), 0o600),
			os.Symlink(mount(ns, filepath.Join(t.TempDir(), "ns")), filepath.Join(at, "ns", "net"))); err != nil {
			t.Fatal(err)
		}
	}
	finder := func(dir string) *spaces {
		return &spaces{dir: dir, procs: procns.New(proc), known: func(string) bool { return true }}
	}
	pod := objects.Pod{UID: uid, IPs: []netip.Addr{ip}}
	want := func(t *testing.T, s *spaces, ns *netns.Namespace) {
		t.Helper()
		got, err := s.find(pod)
		if err != nil {
			t.Fatal(err)
		}
		defer got.Close()
		if got.ID() != ns.ID() {
			t.Errorf("namespace %d, want %d", got.Inode(), ns.Inode())
		}
	}
	kept := with()
	mount(kept, filepath.Join(dir, "cni-1"))
	t.Run("a pod without processes is found where the runtime keeps namespaces", func(t *testing.T) { want(t, finder(dir), kept) })
	thief := with()
	process(20, stranger, thief)
	mount(thief, filepath.Join(dir, "cni-2"))
	process(21, uid, kept)
	process(22, uid, netnstest.New(t)) // a container of its own, with other addresses
	t.Run("a pod that takes another's address is not taken for it", func(t *testing.T) { want(t, finder(dir), kept) })
	t.Run("namespaces are found where no directory keeps them", func(t *testing.T) {
		want(t, finder(filepath.Join(dir, "missing")), kept)
		seen := map[netns.ID]bool{}
		if err := finder(filepath.Join(dir, "missing")).each(func(ns *netns.Namespace) { seen[ns.ID()] = true }); err != nil || !seen[kept.ID()] || !seen[thief.ID()] {
			t.Errorf("seen %v, error %v", seen, err)
		}
	})
	own := with()
	process(23, uid, own)
	t.Run("a namespace that a pod made itself does not take its place", func(t *testing.T) { want(t, finder(dir), kept) })
	t.Run("where the runtime's word is missing, none of two is believed", func(t *testing.T) {
		if got, err := finder(filepath.Join(dir, "missing")).find(pod); err == nil {
			got.Close()
			t.Error("found one")
		}
	})
}
