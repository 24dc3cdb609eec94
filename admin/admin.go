// Package admin is the debug server that each daemon mounts.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/ambit-mesh/ambit/lifecycle"
)

// Levels are the log levels that /logging changes.
type Levels interface {
	Set(spec string) error
	Reset()
	String() string
}

// Config is what a daemon shows.
type Config struct {
	// Name is the daemon's, for the index page.
	Name  string
	Ready *lifecycle.Readiness
	// Metrics answers /metrics and /stats/prometheus.
	Metrics http.Handler
	Levels  Levels
	// Dump writes the JSON of /config_dump. Nil has no such page.
	Dump func(io.Writer) error
	// Quit begins the daemon's end. Nil has no such page.
	Quit func()
	// Pages are further pages of the loopback server, by path.
	Pages map[string]Page
}

// Page is a page, and what the index says of it.
type Page struct {
	About string
	http.Handler
}

// Value makes a Dump of a value that fits into memory twice.
func Value(make func() any) func(io.Writer) error {
	return func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(make())
	}
}

// Listeners are the three sockets of the debug server; a nil one is not served.
type Listeners struct {
	Admin     net.Listener // loopback, port 15000
	Metrics   net.Listener // port 15020
	Readiness net.Listener // port 15021
}

// Listen opens the sockets at the given addresses; an empty address opens none.
func Listen(ctx context.Context, admin, metrics, readiness string) (Listeners, error) {
	var out Listeners
	var lc net.ListenConfig
	for _, s := range []struct {
		addr string
		into *net.Listener
	}{{admin, &out.Admin}, {metrics, &out.Metrics}, {readiness, &out.Readiness}} {
		if s.addr == "" {
			continue
		}
		l, err := lc.Listen(ctx, "tcp", s.addr)
		if err != nil {
			return Listeners{}, errors.Join(fmt.Errorf("open the debug server: %w", err), out.Close())
		}
		*s.into = l
	}
	return out, nil
}

// Close closes the sockets.
func (l Listeners) Close() error {
	var errs []error
	for _, s := range []net.Listener{l.Admin, l.Metrics, l.Readiness} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(errs...)
}

// Run serves until ctx ends, and closes the sockets.
func Run(ctx context.Context, c Config, on Listeners) error {
	g := lifecycle.NewGroup(ctx)
	for _, s := range []struct {
		name string
		l    net.Listener
		h    http.Handler
	}{{"admin", on.Admin, c.adminPages()}, {"metrics", on.Metrics, c.metricsPages()}, {"readiness", on.Readiness, c.readinessPages()}} {
		if s.l == nil {
			continue
		}
		g.Go(s.name, func(ctx context.Context) error { return lifecycle.HTTP{}.Serve(ctx, s.l, s.h) })
	}
	return g.Wait()
}

func (c Config) readinessPages() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz/ready", c.ready)
	return mux
}

func (c Config) ready(w http.ResponseWriter, _ *http.Request) {
	if pending := c.Ready.Pending(); len(pending) > 0 {
		plain(w, http.StatusInternalServerError, "not ready, pending: "+strings.Join(pending, ", "))
		return
	}
	plain(w, http.StatusOK, "ready\n")
}

func (c Config) metricsPages() http.Handler {
	mux := http.NewServeMux()
	if c.Metrics != nil {
		mux.Handle("GET /metrics", c.Metrics)
		mux.Handle("GET /stats/prometheus", c.Metrics)
	}
	return mux
}

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text)) // the reader has gone away
}
