package procns

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/internal/testkit/netnstest"
	"github.com/ambit-mesh/ambit/linux/netns"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

const (
	one   = "01402a5c-0aec-4835-b6f8-b49bf59d4350"
	other = "2ec35af8-605b-4f49-8834-cd998fa26128"
)

func TestUIDs(t *testing.T) {
	const slice = "01402a5c_0aec_4835_b6f8_b49bf59d4350"
	for _, c := range []struct {
		name, cgroup string
		want         []string
	}{
		{"no process of a pod", "0::/system.slice/kubelet.service\n", nil},
		{"version 1, cgroupfs", "9:name=systemd:/kubepods/besteffort/pod" + one + "/a876\n8:pids:/kubepods/besteffort/pod" + one + "/a876\n0::/\n", []string{one}},
		{"version 2, cgroupfs, guaranteed", "0::/kubepods/pod" + one + "/a876\n", []string{one}},
		{"version 2, systemd, containerd", "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + slice + ".slice/cri-containerd-a876.scope\n", []string{one}},
		{"version 2, systemd, CRI-O of OpenShift", "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + slice + ".slice/crio-a876.scope/container\n", []string{one}},
		{"version 1, systemd, docker of minikube", "12:cpu,cpuacct:/docker/77f0/kubepods.slice/kubepods-pod" + slice + ".slice/docker-a876.scope\n", []string{one}},
		{"seen from another container's own cgroup namespace", "0::/../../pod" + one + "/a876\n", []string{one}},
		{"kind: kubelet's slices have a prefix", "0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod" + slice + ".slice/cri-containerd-a876.scope\n", []string{one}},
		{"runtime whose driver is not kubelet's", "0::/system.slice/containerd.service/kubepods-besteffort-pod" + slice + ".slice:cri-containerd:a876\n", []string{one}},
		{"pod of a file of the node", "0::/kubepods/burstable/pod0123456789abcdef0123456789abcdef/a876\n", []string{"0123456789abcdef0123456789abcdef"}},
		{"a pod's own containers say what they like", "0::/kubepods/pod" + one + "/a876/kubepods/pod" + other + "/b\n", []string{one, other}},
		{"two pods at once", "2:cpu:/kubepods/pod" + one + "/a\n3:memory:/kubepods/pod" + other + "/b\n", nil},
		{"a name like a pod's", "0::/podman/pods-of-me/pod/podx/kubepods-pod.slice\n", nil},
		{"no cgroup text", "garbage\n\n::::\n", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if d := cmp.Diff(c.want, UIDs(c.cgroup)); d != "" {
				t.Error(d)
			}
		})
	}
}

func FuzzUIDs(f *testing.F) {
	f.Add("0::/kubepods.slice/kubepods-pod01402a5c_0aec_4835_b6f8_b49bf59d4350.slice/x\n")
	f.Add("9:name=systemd:/kubepods/besteffort/pod" + one + "/a876\n0::/")
	f.Fuzz(func(t *testing.T, text string) {
		for _, u := range UIDs(text) {
			if uid(u) != u {
				t.Errorf("%q is no UID", u)
			}
		}
	})
}

// proc is a /proc of processes that a test makes up.
type proc string

func (p proc) process(t *testing.T, pid int, cgroup string, ns *netns.Namespace) {
	t.Helper()
	dir := filepath.Join(string(p), strconv.Itoa(pid))
	mounted := filepath.Join(t.TempDir(), "ns")
	if err := ns.Mount(mounted); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netns.Unmount(mounted); err != nil {
			t.Error(err)
		}
	})
	for _, err := range []error{
		os.MkdirAll(filepath.Join(dir, "ns"), 0o755),
		os.WriteFile(filepath.Join(dir, "cgroup"), []byte(cgroup), 0o600),
		os.Symlink(mounted, filepath.Join(dir, "ns", "net")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestOf(t *testing.T) {
	netnstest.Need(t)
	p := proc(t.TempDir())
	a, b := netnstest.New(t), netnstest.New(t)
	p.process(t, 10, "0::/kubepods/pod"+one+"/pause\n", a)
	p.process(t, 11, "0::/kubepods/pod"+one+"/app/kubepods/pod"+other+"/forged\n", b)
	p.process(t, 12, "0::/system.slice/ssh.service\n", b)
	everybody := func(string) bool { return true }
	f := New(string(p))
	for _, c := range []struct {
		name, uid string
		known     func(string) bool
		want      []uint64
	}{
		{"a pod has its processes' namespaces, also those within", one, everybody, []uint64{a.Inode(), b.Inode()}},
		{"a pod cannot say that its own processes are another's", other, everybody, nil},
		{"the node is itself a container of a pod that nobody here knows", other, func(uid string) bool { return uid == other }, []uint64{b.Inode()}},
	} {
		t.Run(c.name, func(t *testing.T) {
			found, err := f.Of(c.uid, c.known)
			if err != nil {
				t.Fatal(err)
			}
			have := map[uint64]bool{}
			for _, ns := range found {
				have[ns.Inode()] = true
				ns.Close()
			}
			want := map[uint64]bool{}
			for _, i := range c.want {
				want[i] = true
			}
			if d := cmp.Diff(want, have); d != "" {
				t.Error(d)
			}
		})
	}
	t.Run("a process that cannot be looked into is told of", func(t *testing.T) {
		if err := os.Remove(filepath.Join(string(p), "10", "ns", "net")); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(string(p), "10", "ns", "net"), nil, 0o600); err != nil { // no link: EINVAL
			t.Fatal(err)
		}
		f := New(string(p))
		found, err := f.Of(one, func(uid string) bool { return uid == one })
		for _, ns := range found {
			ns.Close()
		}
		if len(found) != 1 || err != nil { // the other process shows where the pod is
			t.Errorf("%d namespaces, error %v", len(found), err)
		}
		if err := os.Remove(filepath.Join(string(p), "11", "cgroup")); err != nil {
			t.Fatal(err)
		}
		if _, err := New(string(p)).Of(one, everybody); err == nil {
			t.Error("no error")
		}
	})
}
