// Package meshconfig reads Istio's MeshConfig from a file: what of it has an effect here, and what has none.
package meshconfig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Config is what has an effect. Empty fields are not set.
type Config struct {
	TrustDomain   string
	RootNamespace string
}

// maxBytes is more than a ConfigMap can hold.
const maxBytes = 2 << 20

// Parse reads a MeshConfig. unused names the fields that are set and have no effect in this version.
func Parse(data []byte) (c Config, unused []string, err error) {
	if len(data) > maxBytes {
		return c, nil, fmt.Errorf("has %d bytes, more than %d", len(data), maxBytes)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return c, nil, fmt.Errorf("is not YAML: %w", err)
	}
	if len(doc.Content) == 0 {
		return c, nil, nil
	}
	top := doc.Content[0]
	if top.Kind == yaml.ScalarNode && top.ShortTag() == "!!null" {
		return c, nil, nil
	}
	if top.Kind != yaml.MappingNode {
		return c, nil, fmt.Errorf("line %d: is not a map of fields", top.Line)
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(top.Content); i += 2 {
		name, value := top.Content[i], top.Content[i+1]
		if seen[name.Value] {
			return Config{}, nil, fmt.Errorf("line %d: %s is there twice; remove one", name.Line, name.Value)
		}
		seen[name.Value] = true
		switch name.Value {
		case "trustDomain":
			c.TrustDomain, err = text(name.Value, value, validation.IsDNS1123Subdomain)
		case "rootNamespace":
			c.RootNamespace, err = text(name.Value, value, validation.IsDNS1123Label)
		default:
			unused = append(unused, name.Value)
		}
		if err != nil {
			return Config{}, nil, err
		}
	}
	slices.Sort(unused)
	return c, unused, nil
}

func text(name string, v *yaml.Node, check func(string) []string) (string, error) {
	if v.Kind != yaml.ScalarNode || v.ShortTag() != "!!str" {
		return "", fmt.Errorf("line %d: %s: want text", v.Line, name)
	}
	if v.Value != "" && len(check(v.Value)) > 0 {
		return "", fmt.Errorf("line %d: %s: %q is not a name of lower-case letters, digits and '-'", v.Line, name, v.Value)
	}
	return v.Value, nil
}

// every is how often the file is looked at: a kubelet takes a minute to bring it.
const every = 5 * time.Second

// File is a MeshConfig that may change.
type File struct {
	path string
	log  *slog.Logger

	mu     sync.Mutex // guards below
	data   []byte
	first  Config // what is in force: it is read at the start
	report Report
}

// Report is what is to be said of a MeshConfig.
type Report struct {
	InForce Config
	// Unused are fields that are set and have no effect in this version.
	Unused []string
	// Waiting are fields that have changed since the control plane began: they count when it begins again.
	Waiting []string
	// Refused tells why the file as it is now does not count; "" when it does.
	Refused string
}

// Open reads the file at path; none sets nothing. One that is not understood is an error: nothing was read before that
// could go on.
func Open(path string, log *slog.Logger) (*File, error) {
	f := &File{path: path, log: log}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		log.Info("there is no mesh configuration, so all is as by default", "file", path)
		err = nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the mesh configuration: %w", err)
	}
	c, unused, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("read the mesh configuration %s: %w", path, err)
	}
	f.data, f.first, f.report = data, c, Report{InForce: c}
	f.take(c, unused)
	return f, nil
}

// Config is what is in force.
func (f *File) Config() Config { return f.first }

// Report is what is to be said now.
func (f *File) Report() Report {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.report
}

// Run follows the file until ctx ends.
func (f *File) Run(ctx context.Context) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		f.look()
	}
}

// look reads the file again. One that is not understood changes nothing.
func (f *File) look() {
	data, err := os.ReadFile(f.path)
	f.mu.Lock()
	if errors.Is(err, fs.ErrNotExist) && len(f.data) == 0 {
		err = nil // there was none
	}
	same := err == nil && bytes.Equal(data, f.data) && f.report.Refused == ""
	f.mu.Unlock()
	if same {
		return
	}
	c, unused, parse := Config{}, []string(nil), err
	if err == nil {
		c, unused, parse = Parse(data)
	}
	if parse != nil {
		f.mu.Lock()
		told := f.report.Refused == parse.Error()
		f.report.Refused = parse.Error()
		f.mu.Unlock()
		if !told {
			f.log.Error("mesh configuration refused, the last good one goes on", "file", f.path, "why", parse)
		}
		return
	}
	f.mu.Lock()
	f.data = data
	f.mu.Unlock()
	f.take(c, unused)
}

// take notes what a good file says.
func (f *File) take(c Config, unused []string) {
	var waiting []string
	if c.TrustDomain != f.first.TrustDomain {
		waiting = append(waiting, "trustDomain")
	}
	if c.RootNamespace != f.first.RootNamespace {
		waiting = append(waiting, "rootNamespace")
	}
	f.mu.Lock()
	was := f.report
	f.report = Report{InForce: f.first, Unused: unused, Waiting: waiting}
	f.mu.Unlock()
	if len(unused) > 0 && !slices.Equal(unused, was.Unused) {
		f.log.Warn("fields of the mesh configuration have no effect in this version", "fields", strings.Join(unused, ", "))
	}
	if len(waiting) > 0 && !slices.Equal(waiting, was.Waiting) {
		f.log.Warn("fields of the mesh configuration have changed and count when the control plane begins again", "fields", strings.Join(waiting, ", "))
	}
}
