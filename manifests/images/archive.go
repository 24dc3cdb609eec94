package main

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
)

// Media types of https://github.com/opencontainers/image-spec.
const (
	layerType    = "application/vnd.oci.image.layer.v1.tar+gzip"
	configType   = "application/vnd.oci.image.config.v1+json"
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	indexType    = "application/vnd.oci.image.index.v1+json"
)

// blob is content, and the descriptor that others name it by.
type blob struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Platform    *platform         `json:"platform,omitempty"`
	data        []byte
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func newBlob(mediaType string, data []byte) blob {
	return blob{MediaType: mediaType, Digest: digest(data), Size: int64(len(data)), data: data}
}

func jsonBlob(mediaType string, v any) (blob, error) {
	data, err := json.Marshal(v)
	return newBlob(mediaType, data), err
}

func (b blob) path() string { return "blobs/sha256/" + strings.TrimPrefix(b.Digest, "sha256:") }

// dockerImage is an image in the table of contents that docker's archives have.
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// archive is a directory of images in one file, as
// https://github.com/opencontainers/image-spec/blob/main/image-layout.md has it. Content is there once, however many
// images have it. One for a single architecture has docker's table of contents too: docker knew no other before
// version 25, and knows only one image by a name.
type archive struct {
	to     *tar.Writer
	has    map[string]bool
	index  []blob
	docker []dockerImage
}

func newArchive(to io.Writer) *archive {
	return &archive{to: tar.NewWriter(to), has: map[string]bool{}}
}

func (a *archive) file(name string, data []byte) error {
	err := a.to.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data)), ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR,
	})
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	_, err = a.to.Write(data)
	return err
}

func (a *archive) blobs(blobs ...blob) error {
	for _, b := range blobs {
		if a.has[b.Digest] {
			continue
		}
		a.has[b.Digest] = true
		if err := a.file(b.path(), b.data); err != nil {
			return err
		}
	}
	return nil
}

// add puts an image in, under its name: of one architecture, or an index of several.
func (a *archive) add(name string, builds []built) error {
	for _, b := range builds {
		if err := a.blobs(append(b.layers(), b.config, b.manifest)...); err != nil {
			return err
		}
	}
	top := builds[0].manifest
	if len(builds) == 1 {
		d := dockerImage{Config: builds[0].config.path(), RepoTags: []string{short(name)}}
		for _, l := range builds[0].layers() {
			d.Layers = append(d.Layers, l.path())
		}
		a.docker = append(a.docker, d)
	} else {
		index := indexOf()
		for _, b := range builds {
			index.Manifests = append(index.Manifests, b.manifest)
		}
		var err error
		if top, err = jsonBlob(indexType, index); err != nil {
			return err
		}
		if err := a.blobs(top); err != nil {
			return err
		}
	}
	// The first is containerd's, and so of kind and k3s; the other is everyone's.
	top.Annotations = map[string]string{"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
	a.index = append(a.index, top)
	return nil
}

type index struct {
	SchemaVersion int    `json:"schemaVersion"`
	MediaType     string `json:"mediaType"`
	Manifests     []blob `json:"manifests"`
}

func indexOf(manifests ...blob) index {
	return index{SchemaVersion: 2, MediaType: indexType, Manifests: manifests}
}

func (a *archive) close() error {
	top, err := json.Marshal(indexOf(a.index...))
	if err != nil {
		return err
	}
	if len(a.docker) > 0 {
		contents, err := json.Marshal(a.docker)
		if err != nil {
			return err
		}
		if err := a.file("manifest.json", contents); err != nil {
			return err
		}
	}
	if err := a.file("index.json", top); err != nil {
		return err
	}
	if err := a.file("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	return a.to.Close()
}
