package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/pem"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// layer is a compressed tar of files, the same bytes for the same files.
type layer struct {
	blob
	diff string // digest of the tar
	size int64  // of the files
}

// tree writes a layer: each directory once, before what is in it, everything by root and of no time.
type tree struct {
	to   *tar.Writer
	dirs map[string]bool
	size int64
}

func pack(fill func(*tree) error) (layer, error) {
	var plain bytes.Buffer
	t := &tree{to: tar.NewWriter(&plain), dirs: map[string]bool{"/": true}}
	if err := fill(t); err != nil {
		return layer{}, err
	}
	if err := t.to.Close(); err != nil {
		return layer{}, err
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(plain.Bytes()); err != nil {
		return layer{}, err
	}
	if err := z.Close(); err != nil {
		return layer{}, err
	}
	return layer{blob: newBlob(layerType, packed.Bytes()), diff: digest(plain.Bytes()), size: t.size}, nil
}

func (t *tree) entry(h tar.Header) error {
	h.Name, h.ModTime, h.Format = h.Name[1:], time.Unix(0, 0), tar.FormatUSTAR
	return t.to.WriteHeader(&h)
}

func (t *tree) dir(name string, mode int64) error {
	if t.dirs[name] {
		return nil
	}
	if err := t.dir(path.Dir(name), 0o755); err != nil {
		return err
	}
	t.dirs[name] = true
	return t.entry(tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode})
}

func (t *tree) file(name string, mode int64, data []byte) error {
	if err := t.dir(path.Dir(name), 0o755); err != nil {
		return err
	}
	if err := t.entry(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(data))}); err != nil {
		return err
	}
	t.size += int64(len(data))
	_, err := t.to.Write(data)
	return err
}

func (t *tree) link(name, to string) error {
	if err := t.dir(path.Dir(name), 0o755); err != nil {
		return err
	}
	return t.entry(tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to, Mode: 0o777})
}

// base is what every image has: a place for temporary files, and the certificates of the public authorities, as of
// Mozilla and by the version in go.mod rather than as of the machine that builds.
func base() (layer, error) {
	return pack(func(t *tree) error {
		if err := t.dir("/tmp", 0o1777); err != nil {
			return err
		}
		var certs bytes.Buffer
		for root := range bundle.Roots() {
			if root.Constraint != nil {
				continue // trusted for some certificates only, which a file cannot say
			}
			if err := pem.Encode(&certs, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}); err != nil {
				return err
			}
		}
		return t.file("/etc/ssl/certs/ca-certificates.crt", 0o644, certs.Bytes())
	})
}

// program is a layer with one program of dir.
func program(dir, name string) (layer, error) {
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return layer{}, fmt.Errorf("pack %s: %w", name, err)
	}
	return pack(func(t *tree) error { return t.file(programs+name, 0o755, data) })
}

// links is a layer of names of programs.
func links(names map[string]string) (layer, error) {
	return pack(func(t *tree) error {
		for _, name := range slices.Sorted(maps.Keys(names)) {
			if err := t.link(name, programs+names[name]); err != nil {
				return err
			}
		}
		return nil
	})
}
