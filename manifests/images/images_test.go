package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	files "github.com/ambit-mesh/ambit/samples"
)

// programsFor makes a directory of programs for architectures.
func programsFor(t *testing.T, archs ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, arch := range archs {
		if err := os.MkdirAll(filepath.Join(dir, "linux-"+arch), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range needed(append(mesh("h", "t"), samples("h", "t")...)) {
			if err := os.WriteFile(filepath.Join(dir, "linux-"+arch, name), []byte(name+" for "+arch), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

func makeImages(t *testing.T, archs ...string) string {
	t.Helper()
	out := t.TempDir()
	args := append([]string{"-bin", programsFor(t, archs...), "-out", out, "-tag", "v1", "-created", "1700000000", "-revision", "abc"}, archs...)
	if err := run(args, io.Discard); err != nil {
		t.Fatal(err)
	}
	return out
}

// contents are the files of an archive.
func contents(t *testing.T, data []byte) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := all[h.Name]; twice {
			t.Errorf("%s is there twice", h.Name)
		}
		all[h.Name] = b
	}
}

func read(t *testing.T, path string) map[string][]byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return contents(t, data)
}

// follow is the content that a descriptor names, checked against it.
func follow(t *testing.T, all map[string][]byte, b blob, to any) []byte {
	t.Helper()
	data, ok := all[b.path()]
	if !ok || digest(data) != b.Digest || int64(len(data)) != b.Size {
		t.Fatalf("%s %s: there: %v, %d bytes of %d", b.MediaType, b.Digest, ok, len(data), b.Size)
	}
	if to != nil {
		if err := json.Unmarshal(data, to); err != nil {
			t.Fatal(err)
		}
	}
	return data
}

func unzip(t *testing.T, data []byte) []byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

func TestSameBytesForSameSource(t *testing.T) {
	first, second := makeImages(t, "amd64", "arm64"), makeImages(t, "amd64", "arm64")
	for _, name := range []string{"images-amd64.tar", "images-arm64.tar", "images.tar"} {
		a, err := os.ReadFile(filepath.Join(first, name))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(second, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			t.Errorf("%s differs from one time to the next", name)
		}
	}
}

func TestArchiveIsAnImageLayout(t *testing.T) {
	dir := makeImages(t, "amd64", "arm64")
	for name, archs := range map[string][]string{"images-amd64.tar": {"amd64"}, "images-arm64.tar": {"arm64"}, "images.tar": {"amd64", "arm64"}} {
		t.Run(name, func(t *testing.T) {
			all := read(t, filepath.Join(dir, name))
			if got := string(all["oci-layout"]); got != `{"imageLayoutVersion":"1.0.0"}` {
				t.Errorf("oci-layout is %q", got)
			}
			var top index
			if err := json.Unmarshal(all["index.json"], &top); err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, i := range top.Manifests {
				name := i.Annotations["io.containerd.image.name"]
				names = append(names, name)
				manifests := []blob{i}
				if len(archs) > 1 {
					var of index
					follow(t, all, i, &of)
					manifests = of.Manifests
				}
				var got []string
				for _, m := range manifests {
					got = append(got, m.Platform.Architecture)
					checkImage(t, all, name, m)
				}
				if diff := cmp.Diff(archs, got); diff != "" {
					t.Errorf("%s, architectures (-want +got):\n%s", name, diff)
				}
			}
			var want []string
			for _, i := range append(mesh("localhost/ambit", "v1"), samples("localhost/ambit", "v1")...) {
				want = append(want, i.name)
			}
			if diff := cmp.Diff(want, names); diff != "" {
				t.Errorf("images (-want +got):\n%s", diff)
			}
			if _, docker := all["manifest.json"]; docker != (len(archs) == 1) {
				t.Errorf("has docker's table of contents: %v", docker)
			}
		})
	}
}

func checkImage(t *testing.T, all map[string][]byte, name string, m blob) {
	t.Helper()
	var of manifest
	follow(t, all, m, &of)
	var c config
	follow(t, all, of.Config, &c)
	tree := map[string][]byte{}
	for n, l := range of.Layers {
		plain := unzip(t, follow(t, all, l, nil))
		if digest(plain) != c.RootFS.Diffs[n] {
			t.Errorf("%s: layer %d is not what the configuration says", name, n)
		}
		for path, data := range contents(t, plain) {
			if _, twice := tree[path]; !twice || !strings.HasSuffix(path, "/") {
				tree[path] = data
			}
		}
	}
	entry := strings.TrimPrefix(c.Config.Entrypoint[0], "/")
	if got, want := string(tree[entry]), filepath.Base(entry)+" for "+m.Platform.Architecture; got != want {
		t.Errorf("%s: %s holds %q, want %q", name, entry, got, want)
	}
	if name == "localhost/ambit/ambit-node:v1" {
		if _, ok := tree["usr/local/bin/ambit-cni"]; !ok {
			t.Error("the node agent's image lacks the CNI plugin")
		}
	}
	if !regexp.MustCompile(`^\d+:\d+$`).MatchString(c.Config.User) {
		t.Errorf("%s: user %q is not numeric", name, c.Config.User)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(tree["etc/ssl/certs/ca-certificates.crt"]) {
		t.Errorf("%s: no certificate authorities", name)
	}
	if c.Created.Unix() != 1700000000 || c.Config.Labels["org.opencontainers.image.revision"] != "abc" {
		t.Errorf("%s: created %s, labels %v", name, c.Created, c.Config.Labels)
	}
}

func TestDockersTableOfContents(t *testing.T) {
	all := read(t, filepath.Join(makeImages(t, "arm64"), "images-arm64.tar"))
	var images []dockerImage
	if err := json.Unmarshal(all["manifest.json"], &images); err != nil {
		t.Fatal(err)
	}
	if len(images) < 10 {
		t.Fatalf("%d images", len(images))
	}
	for _, i := range images {
		for _, path := range append(slices.Clone(i.Layers), i.Config) {
			if _, ok := all[path]; !ok {
				t.Errorf("%v: %s is not there", i.RepoTags, path)
			}
		}
		if len(i.RepoTags) != 1 || strings.HasPrefix(i.RepoTags[0], "docker.io/") {
			t.Errorf("names %v", i.RepoTags)
		}
	}
}

// TestSamplesHaveImages: every image that an object in samples/ names is made, and each other is one of the mesh's.
func TestSamplesHaveImages(t *testing.T) {
	var made []string
	for _, i := range samples("h", "t") {
		made = append(made, i.name)
	}
	named := map[string]bool{"h/ambit-sample:t": true}
	image := regexp.MustCompile(`(?m)^\s*(?:- )?image:\s*(\S+)`)
	err := fs.WalkDir(files.FS, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(files.FS, path)
		for _, m := range image.FindAllSubmatch(data, -1) {
			name := full(string(m[1]))
			named[name] = true
			if !slices.Contains(made, name) {
				t.Errorf("%s names %s, which is not made", path, name)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range made {
		if !named[name] {
			t.Errorf("%s is made and no sample names it", name)
		}
	}
}

// full is a name as containerd has it.
func full(name string) string {
	if first, _, _ := strings.Cut(name, "/"); !strings.ContainsAny(first, ".:") && first != "localhost" {
		name = "docker.io/" + name
	}
	if !strings.Contains(name[strings.LastIndexByte(name, '/'):], ":") {
		name += ":latest"
	}
	return name
}

func TestErrorsSayWhatToDo(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "want an architecture"},
		{[]string{"-bin", t.TempDir(), "amd64"}, "for amd64: pack ambit: open"},
	} {
		err := run(append([]string{"-out", t.TempDir()}, c.args...), io.Discard)
		if !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%v: %v, want %q", c.args, err, c.want)
		}
	}
}
