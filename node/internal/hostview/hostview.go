// Package hostview says which directories a node's container runtime takes network plugins and their configuration from.
package hostview

import (
	"path"
	"slices"
	"strings"
)

// Runtime is what the node's container runtime uses.
type Runtime struct {
	Name    string   // containerd, cri-o, cri-dockerd
	From    string   // the file that says so, "" for the runtime's defaults
	ConfDir string   // where network configurations are
	BinDirs []string // where plugins are; any of them will do
	Nested  string   // a plugin that has configurations of its own elsewhere, which the node's network really comes from
}

// Defaults of every runtime.
const (
	defaultConf = "/etc/cni/net.d"
	defaultBin  = "/opt/cni/bin"
)

// Detect finds the runtime among the node's processes, and what its configuration says. It is false if there is none that is known.
func Detect(root Root, processes []Process) (Runtime, bool) {
	for _, p := range processes {
		var r Runtime
		switch p.Name {
		case "containerd":
			r = containerd(root, p)
		case "crio":
			r = crio(root, p)
		case "cri-dockerd":
			r = Runtime{Name: "cri-dockerd", ConfDir: defaultConf, BinDirs: []string{defaultBin}}
			if d := flag(p.Args, "--cni-conf-dir"); d != "" {
				r.ConfDir = d
			}
			if d := flag(p.Args, "--cni-bin-dir"); d != "" {
				r.BinDirs = strings.Split(d, ",")
			}
		default:
			continue
		}
		if p.Name == "containerd" && slices.ContainsFunc(processes, func(o Process) bool { return o.Name == "cri-dockerd" }) {
			continue // docker's own: kubelet speaks to the other
		}
		if strings.Contains(r.From, "/docker/") {
			continue // docker's own, beside kubelet's
		}
		r.ConfDir = path.Clean(r.ConfDir)
		for i := range r.BinDirs {
			r.BinDirs[i] = path.Clean(r.BinDirs[i])
		}
		r.Nested = nested(root, r.ConfDir)
		return r, true
	}
	return Runtime{}, false
}

func containerd(root Root, p Process) Runtime {
	r := Runtime{Name: "containerd", ConfDir: defaultConf, BinDirs: []string{defaultBin}}
	file := flag(p.Args, "--config", "-c")
	if file == "" {
		file = "/etc/containerd/config.toml"
	}
	text, err := root.read(file)
	if err != nil {
		return r
	}
	r.From = file
	for _, imported := range values(text, "imports") {
		for _, pattern := range imported {
			if dir := path.Dir(pattern); !strings.ContainsAny(dir, "*?[") && path.IsAbs(dir) {
				for _, n := range root.names(dir) {
					if ok, err := path.Match(path.Base(pattern), n); err == nil && ok {
						if more, err := root.read(path.Join(dir, n)); err == nil {
							text += "\n" + more
						}
					}
				}
			}
		}
	}
	take(&r, text, "conf_dir", "bin_dir", "bin_dirs")
	return r
}

func crio(root Root, p Process) Runtime {
	r := Runtime{Name: "cri-o", ConfDir: defaultConf, BinDirs: []string{defaultBin, "/usr/libexec/cni"}}
	file := flag(p.Args, "--config", "-c")
	if file == "" {
		file = "/etc/crio/crio.conf"
	}
	dir := flag(p.Args, "--config-dir", "-d")
	if dir == "" {
		dir = "/etc/crio/crio.conf.d"
	}
	files := []string{file}
	for _, n := range root.names(dir) {
		files = append(files, path.Join(dir, n))
	}
	for _, f := range files {
		text, err := root.read(f)
		if err != nil {
			continue
		}
		was := r
		take(&r, text, "network_dir", "plugin_dirs")
		if r.ConfDir != was.ConfDir || !slices.Equal(r.BinDirs, was.BinDirs) {
			r.From = f
		}
	}
	if d := flag(p.Args, "--cni-config-dir"); d != "" {
		r.ConfDir = d
	}
	return r
}

// take reads the last word that a configuration says.
func take(r *Runtime, text, conf string, bins ...string) {
	for _, v := range values(text, conf) {
		if len(v) == 1 {
			r.ConfDir = expand(v[0])
		}
	}
	for _, key := range bins {
		for _, v := range values(text, key) {
			if len(v) > 0 {
				r.BinDirs = nil
				for _, d := range v {
					r.BinDirs = append(r.BinDirs, expand(d))
				}
			}
		}
	}
}

// expand puts in what MicroK8s leaves to its environment.
func expand(dir string) string {
	return strings.NewReplacer("${SNAP_DATA}", "/var/snap/microk8s/current", "$SNAP_DATA", "/var/snap/microk8s/current").Replace(dir)
}

// nested is a plugin that reads another directory of configurations: the first in the runtime's own is Multus'.
func nested(root Root, dir string) string {
	for _, n := range root.names(dir) {
		if ext := path.Ext(n); ext != ".conf" && ext != ".conflist" && ext != ".json" {
			continue
		}
		text, err := root.read(path.Join(dir, n))
		if err == nil && (strings.Contains(text, `"multus-shim"`) || strings.Contains(text, `"multus"`)) {
			return "multus"
		}
		return ""
	}
	return ""
}

// flag is the value of the last of some flags: --name value or --name=value.
func flag(args []string, names ...string) string {
	found := ""
	for i, a := range args {
		name, v, has := strings.Cut(a, "=")
		switch {
		case !slices.Contains(names, name):
		case has:
			found = v
		case i+1 < len(args):
			found = args[i+1]
		}
	}
	return found
}
