// Package admin is the debug server that each daemon mounts.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"net"
	"net/http"
	"net/http/pprof"
	"net/url"
	"slices"
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
	// Dump makes the value of /config_dump. Nil has no such page.
	Dump func() any
	// Quit begins the daemon's end. Nil has no such page.
	Quit func()
	// Pages are further pages of the loopback server, by path.
	Pages map[string]http.Handler
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

func (c Config) adminPages() http.Handler {
	mux := http.NewServeMux()
	pages := []string{"/debug/pprof/"}
	page := func(method, path string, h http.Handler) {
		pages = append(pages, path)
		mux.Handle(method+" "+path, h)
	}
	page("GET", "/healthz/ready", http.HandlerFunc(c.ready))
	if c.Metrics != nil {
		page("GET", "/metrics", c.Metrics)
		page("GET", "/stats/prometheus", c.Metrics)
	}
	if c.Dump != nil {
		page("GET", "/config_dump", http.HandlerFunc(c.dump))
	}
	if c.Levels != nil {
		page("POST", "/logging", http.HandlerFunc(c.logging))
	}
	if c.Quit != nil {
		page("POST", "/quitquitquit", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			plain(w, http.StatusOK, "shutdown now\n")
			c.Quit()
		}))
	}
	for path, h := range c.Pages {
		page("GET", path, h)
	}
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	slices.Sort(pages)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprintf(w, "<!doctype html><title>%s</title><h1>%[1]s</h1><ul>", html.EscapeString(c.Name))
		for _, p := range pages {
			fmt.Fprintf(w, "<li><a href=%q>%[1]s</a></li>", html.EscapeString(p))
		}
		fmt.Fprint(w, "</ul>\n")
	})
	return local(mux)
}

// local refuses what a web page of elsewhere could make a browser send here: a foreign Host (DNS rebinding) or Origin.
func local(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !loopback(r.Host) {
			plain(w, http.StatusForbidden, "this server answers to localhost only\n")
			return
		}
		if origin := r.Header.Get("Origin"); origin != "" {
			if u, err := url.Parse(origin); err != nil || !loopback(u.Host) {
				plain(w, http.StatusForbidden, "requests of other sites are refused\n")
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

func loopback(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (c Config) dump(w http.ResponseWriter, _ *http.Request) {
	b, err := json.MarshalIndent(c.Dump(), "", "  ")
	if err != nil {
		plain(w, http.StatusInternalServerError, fmt.Sprintf("write the dump: %v\n", err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(b, '\n')) // the reader has gone away
}

// logging answers POST /logging?level=SPEC, ?reset, or nothing to be told the levels in force.
func (c Config) logging(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if q.Has("reset") {
		c.Levels.Reset()
	}
	if spec := q.Get("level"); spec != "" {
		if err := c.Levels.Set(spec); err != nil {
			plain(w, http.StatusBadRequest, err.Error()+"\n")
			return
		}
	}
	plain(w, http.StatusOK, "current log level is "+c.Levels.String()+"\n")
}

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text)) // the reader has gone away
}
