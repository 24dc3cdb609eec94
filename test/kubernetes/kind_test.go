package kubernetes

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// kind runs the script of `make kind` beside programs that only tell how they were called, and do what is said.
func kind(t *testing.T, programs map[string]string) (said, calls string, ok bool) {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"bin", "path", "test/kubernetes"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, path), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, script := range []string{"kind", "version"} {
		b, err := os.ReadFile(script)
		if err != nil {
			t.Fatal(err)
		}
		write("test/kubernetes/"+script, string(b))
	}
	programs["make"], programs["../bin/ambit"] = "", ""
	for name, does := range programs {
		write("path/"+name, fmt.Sprintf("#!/bin/sh\necho %s \"$@\" >>%s/calls\n%s\n", filepath.Base(name), dir, does))
	}
	for _, tool := range strings.Fields("sh dirname grep cat mktemp rm cut date git") {
		path, err := exec.LookPath(tool)
		if err != nil {
			t.Skipf("no %s here", tool)
		}
		if err := os.Symlink(path, filepath.Join(dir, "path", tool)); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(filepath.Join(dir, "test/kubernetes/kind"))
	cmd.Env = []string{"PATH=" + filepath.Join(dir, "path"), "HOME=" + dir, "MAKE=make"}
	out, err := cmd.CombinedOutput()
	b, readErr := os.ReadFile(filepath.Join(dir, "calls"))
	if readErr != nil && !os.IsNotExist(readErr) {
		t.Fatal(readErr)
	}
	return string(out), string(b), err == nil
}

func TestKind(t *testing.T) {
	docker := "echo arm64"
	t.Run("what is missing is named, and nothing is done", func(t *testing.T) {
		said, calls, ok := kind(t, map[string]string{"docker": docker})
		if ok || calls != "" || !strings.Contains(said, "no kind on the PATH: see https://") || !strings.Contains(said, "no kubectl") || strings.Contains(said, "no docker") {
			t.Errorf("ok %v, called\n%s\nsaid\n%s", ok, calls, said)
		}
	})
	t.Run("a Docker that does not answer is named before anything is built", func(t *testing.T) {
		said, calls, ok := kind(t, map[string]string{"docker": "exit 1", "kind": "", "kubectl": ""})
		if ok || strings.Contains(calls, "make") || !strings.Contains(said, "Docker does not answer") {
			t.Errorf("ok %v, called\n%s\nsaid\n%s", ok, calls, said)
		}
	})
	// called takes the version out of calls: it is that of whatever is there.
	called := func(calls string) string {
		words := strings.Fields(calls)
		for i, w := range words {
			if strings.HasPrefix(w, "VERSION=test-") {
				words[i] = "VERSION"
			}
		}
		return strings.Join(words, " ")
	}
	const load = " kind load image-archive --name ambit dist/images-arm64.tar" +
		" ambit install --context kind-ambit --set profile=ambient-2023 --skip-confirmation"
	const build = "docker version --format {{.Server.Arch}} make -s build images ARCH=arm64 VERSION HUB=localhost/ambit kind get clusters"
	t.Run("a cluster is made, loaded and given the mesh", func(t *testing.T) {
		said, calls, ok := kind(t, map[string]string{"docker": docker, "kubectl": "", "kind": `[ "$1" != create ] || cat`})
		if want := build + " kind create cluster --name ambit --wait 3m --config -" + load; !ok || called(calls) != want {
			t.Errorf("ok %v, called\n%s\nwant\n%s\nsaid\n%s", ok, called(calls), want, said)
		}
		if !strings.Contains(said, "nodes: [{role: control-plane}, {role: worker}, {role: worker}]") {
			t.Errorf("said\n%s", said)
		}
	})
	t.Run("a cluster that is there gets the new images", func(t *testing.T) {
		said, calls, ok := kind(t, map[string]string{"docker": docker, "kubectl": "", "kind": `[ "$1 $2" != "get clusters" ] || echo ambit`})
		if want := build + " kind export kubeconfig --name ambit" + load; !ok || called(calls) != want {
			t.Errorf("ok %v, called\n%s\nwant\n%s\nsaid\n%s", ok, called(calls), want, said)
		}
	})
	t.Run("what fails ends it", func(t *testing.T) {
		said, calls, ok := kind(t, map[string]string{"docker": docker, "kubectl": "", "kind": `[ "$1" != load ]`})
		if ok || strings.Contains(calls, "ambit install") {
			t.Errorf("ok %v, called\n%s\nsaid\n%s", ok, calls, said)
		}
	})
}
