package admin

import (
	"bufio"
	"fmt"
	"html"
	"maps"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"
)

// entry is a line of the index.
type entry struct{ method, path, about string }

func (c Config) adminPages() http.Handler {
	mux := http.NewServeMux()
	var index []entry
	page := func(method, path, about string, h http.Handler) {
		index = append(index, entry{method, path, about})
		mux.Handle(method+" "+path, h)
	}
	if c.Dump != nil {
		page("GET", "/config_dump", "all that it knows, as JSON", http.HandlerFunc(c.dump))
	}
	for _, path := range slices.Sorted(maps.Keys(c.Pages)) {
		page("GET", path, c.Pages[path].About, c.Pages[path])
	}
	page("GET", "/healthz/ready", "whether it is ready, and else what it waits for", http.HandlerFunc(c.ready))
	if c.Metrics != nil {
		page("GET", "/metrics", "metrics, as OpenMetrics to who accepts it", c.Metrics)
		page("GET", "/stats/prometheus", "the same", c.Metrics)
	}
	if c.Levels != nil {
		page("GET", "/logging", "log levels in force", http.HandlerFunc(c.levels))
		page("POST", "/logging", "?level=info,access=debug changes what is named; ?reset returns to those of the start", http.HandlerFunc(c.logging))
	}
	page("GET", "/debug/pprof/", "profiles of the program", http.HandlerFunc(pprof.Index))
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	if c.Quit != nil {
		page("POST", "/quitquitquit", "ends the program, as a signal would", http.HandlerFunc(c.quit))
	}
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { c.index(w, index) })
	return guarded(mux)
}

// index is for a person: what there is, how it stands, and how to change what is no link.
func (c Config) index(w http.ResponseWriter, entries []entry) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	state := "ready"
	if pending := c.Ready.Pending(); len(pending) > 0 {
		state = "not ready, pending: " + strings.Join(pending, ", ")
	}
	fmt.Fprintf(w, "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>%s</title>\n<h1>%[1]s</h1>\n<p>It is %s.", html.EscapeString(c.Name), html.EscapeString(state))
	if c.Levels != nil {
		fmt.Fprintf(w, " It logs %s.", html.EscapeString(c.Levels.String()))
	}
	fmt.Fprint(w, "</p>\n<table>\n")
	for _, e := range entries {
		path := html.EscapeString(e.path)
		shown := "<a href=\"" + path + "\">" + path + "</a>"
		if e.method != "GET" {
			shown = "<code>curl -X " + e.method + " localhost:15000" + path + "</code>"
		}
		fmt.Fprintf(w, "<tr><td>%s<td>%s</tr>\n", shown, html.EscapeString(e.about))
	}
	fmt.Fprint(w, "</table>\n")
}

// dump writes as it goes. What fails in the middle is cut, so that a reader sees that it is not whole.
func (c Config) dump(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	b := bufio.NewWriterSize(w, 32<<10)
	err := c.Dump(b)
	if err == nil {
		err = b.Flush()
	}
	if err != nil {
		panic(http.ErrAbortHandler)
	}
}

func (c Config) levels(w http.ResponseWriter, r *http.Request) {
	if q := r.URL.Query(); q.Has("level") || q.Has("reset") {
		w.Header().Set("Allow", http.MethodPost)
		plain(w, http.StatusMethodNotAllowed, "levels are changed with POST: curl -X POST 'localhost:15000/logging?level=debug'\n")
		return
	}
	plain(w, http.StatusOK, "current log level is "+c.Levels.String()+"\n")
}

// logging answers POST /logging?level=SPEC, ?reset, or nothing to be told the levels in force.
func (c Config) logging(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	before := c.Levels.String()
	if q.Has("reset") {
		c.Levels.Reset()
	}
	if spec := q.Get("level"); spec != "" {
		if err := c.Levels.Set(spec); err != nil {
			if again := c.Levels.Set(before); again != nil {
				err = again
			}
			plain(w, http.StatusBadRequest, err.Error()+"\n")
			return
		}
	}
	plain(w, http.StatusOK, "current log level is "+c.Levels.String()+"\n")
}

func (c Config) quit(w http.ResponseWriter, r *http.Request) {
	if !loopback(r.RemoteAddr) {
		plain(w, http.StatusForbidden, "only from this machine's loopback\n")
		return
	}
	plain(w, http.StatusOK, "shutdown now\n")
	c.Quit()
}
