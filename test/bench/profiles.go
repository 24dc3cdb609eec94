package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/ambit-mesh/ambit/mesh"
)

// profiles takes CPU profiles of our two ztunnels under each load, where a directory for them is named.
func (w *world) profiles(ctx context.Context, _ *result) error {
	if w.conf.profiles == "" {
		return nil
	}
	if err := os.MkdirAll(w.conf.profiles, 0o755); err != nil {
		return err
	}
	var l *lane
	for _, other := range w.lanes {
		if other.name == ambit {
			l = other
		}
	}
	for _, ld := range loads(4) {
		var wg sync.WaitGroup
		errs := make([]error, len(l.nodes))
		for i, node := range l.nodes {
			wg.Go(func() { errs[i] = w.profile(ctx, node, ld.name) })
		}
		done := make(chan struct{})
		go func() { wg.Wait(); close(done) }()
		for running := true; running; {
			select {
			case <-done:
				running = false
			default:
				if _, err := w.once(ctx, l, ld); err != nil {
					return err
				}
			}
		}
		for _, err := range errs {
			if err != nil {
				return err
			}
		}
		for _, node := range l.nodes {
			if err := w.page(ctx, node, ld.name+" allocations", "allocs"); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *world) profile(ctx context.Context, node, name string) error {
	return w.page(ctx, node, name, "profile?seconds=4")
}

// page keeps a page of a ztunnel's profiler.
func (w *world) page(ctx context.Context, node, name, page string) error {
	pod, err := w.Ztunnel(ctx, node)
	if err != nil {
		return err
	}
	b, err := w.Pod(ctx, http.MethodGet, mesh.SystemNamespace, pod, 15000, "/debug/pprof/"+page)
	if err != nil {
		return fmt.Errorf("profile %s of %s: %w", page, pod, err)
	}
	word := strings.NewReplacer(" ", "-", ",", "", "/", "-").Replace(name)
	return os.WriteFile(filepath.Join(w.conf.profiles, word+"."+node+".pprof"), b, 0o644)
}
