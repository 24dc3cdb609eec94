package hostview

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tree makes a node's file system: paths and what they hold, "-> x" for a link to x.
func tree(t *testing.T, files map[string]string) Root {
	t.Helper()
	root := t.TempDir()
	for p, text := range files {
		at := filepath.Join(root, p)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		switch to, link := strings.CutPrefix(text, "-> "); {
		case link:
			err = os.Symlink(to, at)
		case strings.HasSuffix(p, "/"):
			err = os.MkdirAll(at, 0o755)
		default:
			err = os.WriteFile(at, []byte(text), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return Root(root)
}

func process(words ...string) Process { return Process{Name: words[0], Args: words[1:]} }

func TestDetect(t *testing.T) {
	const k3sConf = "/var/lib/rancher/k3s/agent/etc/cni/net.d"
	const k3sFile = "/var/lib/rancher/k3s/agent/etc/containerd/config.toml"
	for _, c := range []struct {
		name     string
		files    map[string]string
		runs     []Process
		want     Runtime
		platform string
	}{
		{
			name: "kubeadm and kind: containerd's defaults",
			runs: []Process{process("systemd"), process("containerd")},
			want: Runtime{Name: "containerd", ConfDir: "/etc/cni/net.d", BinDirs: []string{"/opt/cni/bin"}},
		},
		{
			name: "containerd says where, with comments and a trailing slash",
			files: map[string]string{"/etc/containerd/config.toml": "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".cni]\n  bin_dir = \"/opt/bin/\" # here\n" +
				"  # conf_dir = \"/old\"\n  conf_dir = '/etc/net'\n"},
			runs: []Process{process("containerd")},
			want: Runtime{Name: "containerd", From: "/etc/containerd/config.toml", ConfDir: "/etc/net", BinDirs: []string{"/opt/bin"}},
		},
		{
			name: "containerd 2: several directories, in a file that another imports",
			files: map[string]string{
				"/etc/containerd/config.toml":   "imports = [\"/etc/containerd/conf.d/*.toml\"]\n",
				"/etc/containerd/conf.d/a.toml": "bin_dirs = [\n  '/usr/lib/cni', # first\n  '/opt/cni/bin',\n]\n",
				"/etc/containerd/conf.d/b.bak":  "bin_dirs = ['/no']\n",
			},
			runs: []Process{process("containerd")},
			want: Runtime{Name: "containerd", From: "/etc/containerd/config.toml", ConfDir: "/etc/cni/net.d", BinDirs: []string{"/usr/lib/cni", "/opt/cni/bin"}},
		},
		{
			name:     "k3s",
			files:    map[string]string{k3sFile: "[plugins.'io.containerd.cri.v1.runtime'.cni]\n  bin_dirs = [\"/var/lib/rancher/k3s/data/cni\"]\n  conf_dir = \"" + k3sConf + "\"\n"},
			runs:     []Process{process("k3s-server"), process("containerd", "-c", k3sFile)},
			want:     Runtime{Name: "containerd", From: k3sFile, ConfDir: k3sConf, BinDirs: []string{"/var/lib/rancher/k3s/data/cni"}},
			platform: "k3s",
		},
		{
			name:     "k3d",
			files:    map[string]string{k3sFile: "bin_dir = \"/bin\"\nconf_dir = \"" + k3sConf + "\"\n"},
			runs:     []Process{process("containerd", "-c", k3sFile)},
			want:     Runtime{Name: "containerd", From: k3sFile, ConfDir: k3sConf, BinDirs: []string{"/bin"}},
			platform: "k3d",
		},
		{
			name: "MicroK8s, whose configuration is behind a link",
			files: map[string]string{
				"/var/snap/microk8s/7000/args/containerd.toml": "bin_dir = \"${SNAP_DATA}/opt/cni/bin\"\nconf_dir = \"${SNAP_DATA}/args/cni-network\"\n",
				"/var/snap/microk8s/current":                   "-> /var/snap/microk8s/7000",
			},
			runs: []Process{process("containerd", "--config", "/var/snap/microk8s/current/args/containerd.toml")},
			want: Runtime{
				Name: "containerd", From: "/var/snap/microk8s/current/args/containerd.toml",
				ConfDir: "/var/snap/microk8s/current/args/cni-network", BinDirs: []string{"/var/snap/microk8s/current/opt/cni/bin"},
			},
			platform: "microk8s",
		},
		{
			name:     "GKE",
			files:    map[string]string{"/etc/containerd/config.toml": "bin_dir = \"/home/kubernetes/bin\"\nconf_dir = \"/etc/cni/net.d\"\n"},
			runs:     []Process{process("containerd")},
			want:     Runtime{Name: "containerd", From: "/etc/containerd/config.toml", ConfDir: "/etc/cni/net.d", BinDirs: []string{"/home/kubernetes/bin"}},
			platform: "gke",
		},
		{
			name: "OpenShift: CRI-O, and Multus before the network",
			files: map[string]string{
				"/etc/crio/crio.conf.d/00-default":             "[crio.network]\nnetwork_dir = \"/etc/kubernetes/cni/net.d/\"\nplugin_dirs = [\n\t\"/var/lib/cni/bin\",\n\t\"/usr/libexec/cni\",\n]\n",
				"/etc/kubernetes/cni/net.d/00-multus.conf":     "{\"type\":\"multus-shim\"}",
				"/etc/kubernetes/cni/net.d/whereabouts.d/conf": "",
			},
			runs: []Process{process("crio")},
			want: Runtime{
				Name: "cri-o", From: "/etc/crio/crio.conf.d/00-default", ConfDir: "/etc/kubernetes/cni/net.d",
				BinDirs: []string{"/var/lib/cni/bin", "/usr/libexec/cni"}, Nested: "multus",
			},
			platform: "openshift",
		},
		{
			name: "minikube with docker: its containerd is not kubelet's",
			runs: []Process{
				process("containerd", "--config", "/var/run/docker/containerd/containerd.toml"),
				process("cri-dockerd", "--network-plugin=cni", "--cni-conf-dir=/etc/cni/net.mk"),
			},
			want:     Runtime{Name: "cri-dockerd", ConfDir: "/etc/cni/net.mk", BinDirs: []string{"/opt/cni/bin"}},
			platform: "minikube",
		},
		{
			name:  "docker beside kubelet's containerd",
			files: map[string]string{"/run/docker/containerd/containerd.toml": "version = 2", "/var/run": "-> /run"},
			runs:  []Process{process("containerd", "--config", "/var/run/docker/containerd/containerd.toml"), process("containerd")},
			want:  Runtime{Name: "containerd", ConfDir: "/etc/cni/net.d", BinDirs: []string{"/opt/cni/bin"}},
		},
		{name: "no runtime", runs: []Process{process("systemd")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := Detect(tree(t, c.files), c.runs)
			if ok != (c.want.Name != "") {
				t.Fatalf("found %v", ok)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
			if p := Platform(got); p != c.platform {
				t.Errorf("platform %q, want %q", p, c.platform)
			}
		})
	}
}

func TestDifferences(t *testing.T) {
	root := tree(t, map[string]string{
		"/var/lib/rancher/k3s/agent/etc/cni/net.d/": "", "/etc/cni/net.d/": "", "/opt/cni/bin/": "",
		"/data/9/bin/": "", "/data/current": "-> /data/9",
	})
	at := func(p string) string { return filepath.Join(string(root), p) }
	r := Runtime{Name: "containerd", From: "/c.toml", ConfDir: "/var/lib/rancher/k3s/agent/etc/cni/net.d", BinDirs: []string{"/missing", "/data/current/bin"}}
	d, err := Differences(root, r, Given{ConfDir: at(r.ConfDir), BinDir: at("/data/9/bin")})
	if err != nil || d != nil {
		t.Errorf("the same directories, one behind a link of the node's: %v %v", d, err)
	}
	d, err = Differences(root, r, Given{ConfDir: at("/etc/cni/net.d"), BinDir: at("/opt/cni/bin")})
	if err != nil || len(d) != 2 {
		t.Fatalf("%v %v", d, err)
	}
	for i, want := range []string{"set cniConfDir (values.cni.cniConfDir) to /var/lib/rancher/k3s/agent/etc/cni/net.d, or global.platform to k3s", "set cniBinDir (values.cni.cniBinDir) to /missing"} {
		if !strings.Contains(d[i], want) {
			t.Errorf("%q does not say %q", d[i], want)
		}
	}
	if _, err := Differences(Root(at("/none")), r, Given{}); err == nil {
		t.Error("a root that is not there: no error")
	}
}

func TestRootKeepsIn(t *testing.T) {
	out := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(out, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	root := tree(t, map[string]string{"/link": "-> " + out, "/up": "-> ../../../../../../" + out})
	for _, p := range []string{"/link", "/up", "../../../../../../" + out} {
		if text, err := root.read(p); err == nil {
			t.Errorf("%s leads out: %q", p, text)
		}
	}
}

func FuzzValues(f *testing.F) {
	f.Add("a = \"b\"\nbin_dirs = [\n'x', # c\n\"y\"]\nbin_dirs = [", "bin_dirs")
	f.Add("bin_dirs = ['", "bin_dirs")
	f.Fuzz(func(t *testing.T, text, key string) {
		for _, v := range values(text, key) {
			for _, w := range v {
				if w == "" {
					t.Error("an empty word")
				}
			}
		}
	})
}

func TestProcessesOutsidePods(t *testing.T) {
	root := tree(t, map[string]string{
		"/1/cgroup": "0::/init.scope\n", "/1/cmdline": "/sbin/init\x00",
		"/7/cgroup": "0::/system.slice/containerd.service\n", "/7/cmdline": "/usr/bin/containerd\x00--config\x00/x\x00",
		"/8/cgroup": "0::/kubepods/pod01402a5c-0aec-4835-b6f8-b49bf59d4350/a\n", "/8/cmdline": "containerd\x00--config\x00/forged\x00",
		"/9/cgroup": "0::/\n", "/9/cmdline": "", "/self/cgroup": "",
	})
	got, err := Processes(string(root))
	want := []Process{{Name: "init", Args: []string{}}, {Name: "containerd", Args: []string{"--config", "/x"}}}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(d, err)
	}
}
