package kubelet

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// file is one of a volume's.
type file struct {
	data []byte
	mode os.FileMode
}

// payload is a directory whose files change all at once: they are links into "..data", which is a link to the
// directory of the present version.
type payload struct {
	dir     string
	written map[string]file
	version int
	tokens  map[string]issued // by path
}

// issued is a token and when to replace it.
type issued struct {
	token string
	renew time.Time
}

// write puts new files in force. Nothing happens if they are those in force.
func (p *payload) write(files map[string]file) error {
	if p.written != nil && maps.EqualFunc(p.written, files, func(a, b file) bool { return a.mode == b.mode && bytes.Equal(a.data, b.data) }) {
		return nil
	}
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return err
	}
	p.version++
	next := fmt.Sprintf("..%d", p.version)
	for path, f := range files {
		if !filepath.IsLocal(path) || strings.HasPrefix(path, "..") {
			return fmt.Errorf("path %q leads out of the volume", path)
		}
		at := filepath.Join(p.dir, next, path)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(at, f.data, f.mode); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(p.dir, next), 0o755); err != nil {
		return err
	}
	if err := link(next, filepath.Join(p.dir, "..data")); err != nil {
		return err
	}
	return p.tidy(files, next)
}

// tidy makes the links that programs see and removes what the version before had.
func (p *payload) tidy(files map[string]file, next string) error {
	top := map[string]bool{"..data": true, next: true}
	for path := range files {
		name, _, _ := strings.Cut(path, "/")
		top[name] = true
		if _, err := os.Lstat(filepath.Join(p.dir, name)); errors.Is(err, os.ErrNotExist) {
			if err := os.Symlink(filepath.Join("..data", name), filepath.Join(p.dir, name)); err != nil {
				return err
			}
		}
	}
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !top[e.Name()] {
			if err := os.RemoveAll(filepath.Join(p.dir, e.Name())); err != nil {
				return err
			}
		}
	}
	p.written = files
	return nil
}

// link makes a link in place of the one there, so that there is always one.
func link(to, at string) error {
	tmp := at + "_tmp"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Symlink(to, tmp); err != nil {
		return err
	}
	return os.Rename(tmp, at)
}

// content is what a volume holds now.
func (v *volumes) content(pod *corev1.Pod, vol corev1.Volume, p *payload, now time.Time) (map[string]file, error) {
	g := &gather{v: v, pod: pod, p: p, now: now, files: map[string]file{}, mode: 0o644}
	switch {
	case vol.ConfigMap != nil:
		s := vol.ConfigMap
		return g.files, g.defaultMode(s.DefaultMode).configMap(s.Name, s.Items, s.Optional)
	case vol.Secret != nil:
		s := vol.Secret
		return g.files, g.defaultMode(s.DefaultMode).secret(s.SecretName, s.Items, s.Optional)
	case vol.DownwardAPI != nil:
		return g.files, g.defaultMode(vol.DownwardAPI.DefaultMode).downward(vol.DownwardAPI.Items)
	}
	g.defaultMode(vol.Projected.DefaultMode)
	for _, s := range vol.Projected.Sources {
		var err error
		switch {
		case s.ConfigMap != nil:
			err = g.configMap(s.ConfigMap.Name, s.ConfigMap.Items, s.ConfigMap.Optional)
		case s.Secret != nil:
			err = g.secret(s.Secret.Name, s.Secret.Items, s.Secret.Optional)
		case s.DownwardAPI != nil:
			err = g.downward(s.DownwardAPI.Items)
		case s.ServiceAccountToken != nil:
			err = g.token(s.ServiceAccountToken)
		default:
			err = errors.New("a source of this kind is not available on a local cluster")
		}
		if err != nil {
			return nil, err
		}
	}
	return g.files, nil
}

// gather collects the files of one volume.
type gather struct {
	v     *volumes
	pod   *corev1.Pod
	p     *payload
	now   time.Time
	mode  os.FileMode
	files map[string]file
}

func (g *gather) defaultMode(m *int32) *gather {
	if m != nil {
		g.mode = os.FileMode(*m) & 0o777
	}
	return g
}

func (g *gather) configMap(name string, items []corev1.KeyToPath, optional *bool) error {
	m, ok := g.v.k.conf.Cluster.ConfigMap(g.pod.Namespace, name)
	if !ok {
		return missing("configmap", name, optional)
	}
	data := map[string][]byte{}
	for key, value := range m.Data {
		data[key] = []byte(value)
	}
	maps.Copy(data, m.BinaryData)
	return g.pick("configmap "+name, data, items, optional)
}

func (g *gather) secret(name string, items []corev1.KeyToPath, optional *bool) error {
	s, ok := g.v.k.conf.Cluster.Secret(g.pod.Namespace, name)
	if !ok {
		return missing("secret", name, optional)
	}
	return g.pick("secret "+name, s.Data, items, optional)
}

func missing(kind, name string, optional *bool) error {
	if optional != nil && *optional {
		return nil
	}
	return fmt.Errorf("%s %q not found", kind, name)
}

// pick takes the items, or everything if there are none.
func (g *gather) pick(what string, data map[string][]byte, items []corev1.KeyToPath, optional *bool) error {
	if len(items) == 0 {
		for key, value := range data {
			g.files[key] = file{value, g.mode}
		}
		return nil
	}
	for _, i := range items {
		value, ok := data[i.Key]
		if !ok {
			if optional != nil && *optional {
				continue
			}
			return fmt.Errorf("%s has no key %q", what, i.Key)
		}
		g.files[i.Path] = file{value, g.itemMode(i.Mode)}
	}
	return nil
}

func (g *gather) itemMode(m *int32) os.FileMode {
	if m != nil {
		return os.FileMode(*m) & 0o777
	}
	return g.mode
}

func (g *gather) downward(items []corev1.DownwardAPIVolumeFile) error {
	for _, i := range items {
		if i.FieldRef == nil {
			return fmt.Errorf("file %q: only fields of the pod are available", i.Path)
		}
		value, err := field(g.pod, i.FieldRef.FieldPath)
		if err != nil {
			return err
		}
		g.files[i.Path] = file{[]byte(value), g.itemMode(i.Mode)}
	}
	return nil
}

// token is kept for four fifths of its life, as Kubernetes does.
func (g *gather) token(s *corev1.ServiceAccountTokenProjection) error {
	have, ok := g.p.tokens[s.Path]
	if !ok || !g.now.Before(have.renew) {
		ttl := time.Hour
		if s.ExpirationSeconds != nil {
			ttl = time.Duration(*s.ExpirationSeconds) * time.Second
		}
		t, err := g.v.k.conf.Cluster.Token(g.pod, s.Audience, ttl)
		if err != nil {
			return fmt.Errorf("token of service account %s: %w", serviceAccount(g.pod), err)
		}
		have = issued{token: t, renew: g.now.Add(ttl * 4 / 5)}
		if g.p.tokens == nil {
			g.p.tokens = map[string]issued{}
		}
		g.p.tokens[s.Path] = have
	}
	g.files[s.Path] = file{[]byte(have.token), g.mode}
	return nil
}
