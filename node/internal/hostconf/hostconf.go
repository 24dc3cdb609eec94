package hostconf

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Config says what goes where.
type Config struct {
	// Plugin is the binary to install; BinDir and ConfDir are the host's, as this process sees them.
	Plugin, BinDir, ConfDir string
	// RunDir is where the plugin finds the agent's socket, as the host sees it.
	RunDir string
	// ExcludeNamespaces and PodNamespace go into the plugin's configuration.
	ExcludeNamespaces []string
	PodNamespace      string
	Log               *slog.Logger
}

// Keeper installs and repairs.
type Keeper struct {
	conf      Config
	installed atomic.Bool
}

// New makes a keeper; Run works.
func New(c Config) *Keeper { return &Keeper{conf: c} }

// Installed tells whether plugin and configuration were in place when last looked at.
func (k *Keeper) Installed() bool { return k.installed.Load() }

// plugin is the element that goes into the list.
func (k *Keeper) plugin() ([]byte, error) {
	return json.Marshal(map[string]any{
		"type": PluginType, "ambient_enabled": true, "cni_agent_run_dir": k.conf.RunDir,
		"exclude_namespaces": k.conf.ExcludeNamespaces, "pod_namespace": k.conf.PodNamespace,
	})
}

// Install puts everything in place once. What is right already is left alone.
func (k *Keeper) Install() error {
	err := k.install()
	k.installed.Store(err == nil) // not before: a look at what is right must not make the agent unready
	return err
}

func (k *Keeper) install() error {
	if err := k.binary(); err != nil {
		return err
	}
	path, err := k.list()
	if err != nil {
		return err
	}
	have, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("network configuration: %w", err)
	}
	p, err := k.plugin()
	if err != nil {
		return err
	}
	want, err := Insert(have, p)
	if err != nil {
		return fmt.Errorf("network configuration %s: %w", path, err)
	}
	if !bytes.Equal(have, want) {
		if err := rewrite(path, want); err != nil {
			return fmt.Errorf("network configuration: %w", err)
		}
		k.conf.Log.Info("plugin chained into the node's network configuration", "file", path)
	}
	return nil
}

// binary copies the plugin unless the same is there.
func (k *Keeper) binary() error {
	path := filepath.Join(k.conf.BinDir, PluginType)
	want, err := sum(k.conf.Plugin)
	if err != nil {
		return fmt.Errorf("plugin to install: %w", err)
	}
	if have, err := sum(path); err == nil && have == want {
		return nil
	}
	from, err := os.Open(k.conf.Plugin)
	if err != nil {
		return fmt.Errorf("plugin to install: %w", err)
	}
	defer from.Close()
	if err := replace(path, from, 0o755); err != nil {
		return fmt.Errorf("install the plugin: %w", err)
	}
	return nil
}

// sum is what tells files apart. The plugin is never in memory whole: it is larger than all else that the agent holds.
func sum(path string) (out [sha256.Size]byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return out, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return out, err
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// ErrNoNetwork means that the node's own network plugin has not written its configuration yet.
var ErrNoNetwork = errors.New("no network configuration list (*.conflist) is there yet")

// list is the configuration that a runtime uses: the first by name.
func (k *Keeper) list() (string, error) {
	entries, err := os.ReadDir(k.conf.ConfDir)
	if err != nil {
		return "", fmt.Errorf("network configuration: %w", err)
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() && strings.HasSuffix(e.Name(), ".conflist") && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	if len(names) == 0 {
		return "", fmt.Errorf("%s: %w", k.conf.ConfDir, ErrNoNetwork)
	}
	return filepath.Join(k.conf.ConfDir, slices.Min(names)), nil
}

// Retry after a failure, and a look although nothing was heard of.
const (
	retryAfter = time.Second
	lookEvery  = time.Minute
)

// Run installs, and repairs whenever somebody changes the plugin's file or the configuration, until ctx ends. It leaves
// everything in place: pods must not start uncaptured while the agent is away.
func (k *Keeper) Run(ctx context.Context) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch the host's configuration: %w", err)
	}
	defer w.Close()
	for _, dir := range []string{k.conf.BinDir, k.conf.ConfDir} {
		if err := w.Add(dir); err != nil {
			return fmt.Errorf("watch %s: %w", dir, err)
		}
	}
	for {
		next := lookEvery
		if err := k.Install(); err != nil {
			next = retryAfter
			k.conf.Log.Warn("plugin not in place, will retry", "error", err)
		}
		t := time.NewTimer(next)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case err := <-w.Errors:
			k.conf.Log.Warn("watching the host's configuration", "error", err)
		case <-w.Events:
			settle(w)
		case <-t.C:
		}
		t.Stop()
	}
}

// settle lets a burst of events pass: whoever rewrites a file may do so in steps.
func settle(w *fsnotify.Watcher) {
	const quiet = 20 * time.Millisecond
	for {
		t := time.NewTimer(quiet)
		select {
		case <-w.Events:
			t.Stop()
		case <-t.C:
			return
		}
	}
}

// Uninstall takes the plugin out of every configuration list and removes its file.
func (k *Keeper) Uninstall() error {
	k.installed.Store(false)
	entries, err := os.ReadDir(k.conf.ConfDir)
	if err != nil {
		return fmt.Errorf("network configuration: %w", err)
	}
	var failed []error
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".conflist") {
			continue
		}
		path := filepath.Join(k.conf.ConfDir, e.Name())
		have, err := os.ReadFile(path)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		if without, err := Remove(have); err == nil && !bytes.Equal(have, without) {
			failed = append(failed, rewrite(path, without))
		}
	}
	if err := os.Remove(filepath.Join(k.conf.BinDir, PluginType)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

// rewrite replaces a file of somebody else, who may see as much of it as before.
func rewrite(path string, data []byte) error {
	i, err := os.Stat(path)
	if err != nil {
		return err
	}
	return replace(path, bytes.NewReader(data), i.Mode().Perm())
}

// replace puts a whole file in place at once; a failure leaves the old one and no other.
func replace(path string, data io.Reader, mode fs.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".ambit-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = io.Copy(f, data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
