package main

import (
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// built is an image for one architecture.
type built struct {
	config, manifest blob
	parts            []layer
}

func (b built) layers() []blob {
	var all []blob
	for _, l := range b.parts {
		all = append(all, l.blob)
	}
	return all
}

// size is that of the files in it, and that of the image as it is stored and sent.
func (b built) size() (files, packed int64) {
	for _, l := range b.parts {
		files += l.size
		packed += l.blob.Size
	}
	return files, packed
}

type config struct {
	Created      time.Time `json:"created"`
	Architecture string    `json:"architecture"`
	OS           string    `json:"os"`
	Config       struct {
		User       string            `json:"User"`
		Env        []string          `json:"Env"`
		Entrypoint []string          `json:"Entrypoint"`
		Cmd        []string          `json:"Cmd,omitempty"`
		WorkingDir string            `json:"WorkingDir"`
		Labels     map[string]string `json:"Labels"`
	} `json:"config"`
	RootFS struct {
		Type  string   `json:"type"`
		Diffs []string `json:"diff_ids"`
	} `json:"rootfs"`
	History []history `json:"history"`
}

type history struct {
	Created time.Time `json:"created"`
	By      string    `json:"created_by"`
}

type manifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	Config        blob              `json:"config"`
	Layers        []blob            `json:"layers"`
	Annotations   map[string]string `json:"annotations"`
}

// source says what images are made from.
type source struct {
	version, revision, url string
	created                time.Time
}

// maker makes the images of one architecture. Each program is packed once, whatever the number of images with it.
type maker struct {
	source
	arch     string
	base     layer
	programs map[string]layer
}

func newMaker(s source, dir, arch string, base layer, names []string) (*maker, error) {
	m := &maker{source: s, arch: arch, base: base, programs: map[string]layer{}}
	packed, errs := make([]layer, len(names)), make([]error, len(names))
	var all sync.WaitGroup
	for i, name := range names {
		all.Go(func() { packed[i], errs[i] = program(filepath.Join(dir, "linux-"+arch), name) })
	}
	all.Wait()
	for i, name := range names {
		if errs[i] != nil {
			return nil, errs[i]
		}
		m.programs[name] = packed[i]
	}
	return m, nil
}

func (m *maker) make(i image) (built, error) {
	b := built{parts: []layer{m.base}}
	by := []string{"temporary directory, certificate authorities"}
	for _, name := range i.programs {
		b.parts, by = append(b.parts, m.programs[name]), append(by, name)
	}
	if len(i.links) > 0 {
		l, err := links(i.links)
		if err != nil {
			return built{}, err
		}
		b.parts, by = append(b.parts, l), append(by, "names of programs")
	}
	labels := map[string]string{
		"org.opencontainers.image.title":       i.programs[0],
		"org.opencontainers.image.description": i.about,
		"org.opencontainers.image.version":     m.version,
		"org.opencontainers.image.revision":    m.revision,
		"org.opencontainers.image.created":     m.created.Format(time.RFC3339),
		"org.opencontainers.image.source":      m.url,
		"org.opencontainers.image.licenses":    "Apache-2.0",
	}
	c := config{Created: m.created, Architecture: m.arch, OS: "linux"}
	c.Config.User, c.Config.Entrypoint, c.Config.Cmd, c.Config.WorkingDir, c.Config.Labels = i.user, i.entrypoint, i.cmd, "/", labels
	c.Config.Env = slices.Concat([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, i.env)
	c.RootFS.Type = "layers"
	for n, l := range b.parts {
		c.RootFS.Diffs = append(c.RootFS.Diffs, l.diff)
		c.History = append(c.History, history{Created: m.created, By: by[n]})
	}
	var err error
	if b.config, err = jsonBlob(configType, c); err != nil {
		return built{}, err
	}
	b.manifest, err = jsonBlob(manifestType, manifest{
		SchemaVersion: 2, MediaType: manifestType, Config: b.config, Layers: b.layers(), Annotations: labels,
	})
	b.manifest.Platform = &platform{Architecture: m.arch, OS: "linux"}
	return b, err
}
