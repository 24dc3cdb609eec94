// Package hostconf puts the plugin and its configuration on the host and keeps them there.
package hostconf

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Config says what goes where.
type Config struct {
	// Plugin is the binary to install; BinDir and ConfDir are the host's, as this process sees them.
	Plugin, BinDir, ConfDir string
	// Owned is a file of ConfDir that holds a copy of the node's own configuration with the plugin chained into it: after a
	// reboot the node's network plugin may write its own configuration before the agent runs. It must be the first by name; where
	// it is not, and by default (""), the plugin is chained into the node's own configuration.
	Owned string
	// RunDir is where the plugin finds the agent's sockets, as the host sees it; AgentRunDir is the same as this process
	// sees it.
	RunDir, AgentRunDir string
	// APIServer, TokenFile and CAFile are how the plugin asks the API server while the agent is away.
	APIServer, TokenFile, CAFile string
	// Token is one of the plugin's own, "" while there is none: then it gets the agent's, that of TokenFile. It may be nil.
	Token func() string
	// Renewed tells that Token gives another. It may be nil.
	Renewed <-chan struct{}
	// ExcludeNamespaces, PodNamespace, Selectors (JSON), DetectionRetry and LogLevel go into the plugin's configuration.
	ExcludeNamespaces []string
	PodNamespace      string
	Selectors         string
	DetectionRetry    bool
	LogLevel          string
	// Installed is told of each attempt to put everything in place that did something or failed. It may be nil.
	Installed func(Result)
	Log       *slog.Logger
}

// Result is how an installation went, in Istio's words.
type Result string

// Results.
const (
	Success          Result = "SUCCESS"
	BinaryFailure    Result = "COPY_BINARIES_FAILURE"
	AccessFailure    Result = "CREATE_KUBECONFIG_FAILURE"
	ConfigurationBad Result = "CREATE_CNI_CONFIG_FAILURE"
)

// Keeper installs and repairs. Only one goroutine may use it, but for Installed.
type Keeper struct {
	conf      Config
	installed atomic.Bool
	writes    []time.Time // the latest, oldest first
}

// New makes a keeper; Run works.
func New(c Config) *Keeper { return &Keeper{conf: c} }

// Installed tells whether plugin and configuration were in place when last looked at.
func (k *Keeper) Installed() bool { return k.installed.Load() }

// plugin is the element that goes into the list.
func (k *Keeper) plugin(owned bool) ([]byte, error) {
	p := map[string]any{
		"type": PluginType, "ambient_enabled": true, "cni_agent_run_dir": k.conf.RunDir,
		"exclude_namespaces": k.conf.ExcludeNamespaces, "pod_namespace": k.conf.PodNamespace,
	}
	if k.conf.Selectors != "" {
		p["enablement_selectors"] = json.RawMessage(k.conf.Selectors)
	}
	if k.conf.DetectionRetry {
		p["enable_ambient_detection_retry"] = true
	}
	if k.conf.LogLevel != "" {
		p["plugin_log_level"] = k.conf.LogLevel
	}
	if owned {
		p[ownedKey] = k.conf.Owned
	}
	return json.Marshal(p)
}

// Install puts everything in place once. What is right already is left alone.
func (k *Keeper) Install() error {
	result, err := k.install()
	was := k.installed.Swap(err == nil) // not before: a look at what is right must not make the agent unready
	if k.conf.Installed != nil && (err != nil || !was) {
		k.conf.Installed(result)
	}
	return err
}

func (k *Keeper) install() (Result, error) {
	bin, err := openDir(k.conf.BinDir)
	if err != nil {
		return BinaryFailure, fmt.Errorf("install the plugin: %w", err)
	}
	defer bin.Close()
	if err := errors.Join(bin.sweep(), k.binary(bin)); err != nil {
		return BinaryFailure, fmt.Errorf("install the plugin: %w", err)
	}
	if err := k.access(); err != nil {
		return AccessFailure, fmt.Errorf("let the plugin ask the API server: %w", err)
	}
	conf, err := openDir(k.conf.ConfDir)
	if err != nil {
		return ConfigurationBad, fmt.Errorf("network configuration: %w", err)
	}
	defer conf.Close()
	if err := errors.Join(conf.sweep(), k.network(conf)); err != nil {
		return ConfigurationBad, fmt.Errorf("network configuration in %s: %w", k.conf.ConfDir, err)
	}
	return Success, nil
}

// binary copies the plugin unless the same is there. It is never in memory whole: it is larger than all else that the agent
// holds.
func (k *Keeper) binary(d dir) error {
	from, err := os.Open(k.conf.Plugin)
	if err != nil {
		return err
	}
	defer from.Close()
	want, err := sum(from)
	if err != nil {
		return err
	}
	if have, st, err := d.open(PluginType); err == nil {
		sum, err := sum(have)
		have.Close()
		if err == nil && sum == want && st.Mode().Perm() == 0o755 {
			return nil
		}
	}
	if _, err := from.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return d.replace(PluginType, from, 0o755)
}

// sum is what tells files apart.
func sum(f io.Reader) (out [sha256.Size]byte, err error) {
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return out, err
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// calmWrites is how many changes of the configuration follow each other at once; then one each second.
const calmWrites = 10

// calm bounds how often a configuration is written again: another program that undoes each change must not keep the node
// busy, and somebody must hear of it.
func (k *Keeper) calm(d dir) error {
	now := time.Now()
	if n := len(k.writes); n == calmWrites {
		if now.Sub(k.writes[0]) < calmWrites*retryAfter && now.Sub(k.writes[n-1]) < retryAfter {
			return undoing(d)
		}
		k.writes = k.writes[1:]
	}
	k.writes = append(k.writes, now)
	return nil
}

// Retry after a failure, and a look although nothing was heard of: also the agent's own token changes.
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
	last := ""
	for {
		next := lookEvery
		// Before the look, so that no change falls between; each time, for a directory may have been made anew.
		watching := errors.Join(w.Add(k.conf.BinDir), w.Add(k.conf.ConfDir))
		if err := errors.Join(watching, k.Install()); err != nil {
			next = retryAfter
			if err.Error() != last {
				k.conf.Log.Warn("plugin not in place, will retry", "error", err)
			}
			last = err.Error()
		} else {
			last = ""
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
		case <-k.conf.Renewed:
		case <-t.C:
		}
		t.Stop()
	}
}

// settle lets a burst of events pass: whoever rewrites a file may do so in steps.
func settle(w *fsnotify.Watcher) {
	const quiet, most = 20 * time.Millisecond, 10
	for range most { // one that never stops must not keep the plugin out
		t := time.NewTimer(quiet)
		select {
		case <-w.Events:
			t.Stop()
		case <-t.C:
			return
		}
	}
}

// Uninstall takes the plugin out of every configuration and removes its file.
func (k *Keeper) Uninstall() error {
	k.installed.Store(false)
	conf, err := openDir(k.conf.ConfDir)
	if err != nil {
		return fmt.Errorf("network configuration: %w", err)
	}
	defer conf.Close()
	if err := k.unchain(conf); err != nil {
		return fmt.Errorf("network configuration in %s: %w", filepath.Clean(k.conf.ConfDir), err) // the plugin is still called: it must stay
	}
	bin, err := openDir(k.conf.BinDir)
	if err != nil {
		return err
	}
	defer bin.Close()
	return errors.Join(bin.gone(PluginType), k.forget())
}
