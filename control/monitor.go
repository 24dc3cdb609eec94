package control

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/ambit-mesh/ambit/admin"
	"github.com/ambit-mesh/ambit/control/source"
)

// readiness answers /ready for the kubelet, and nothing else.
func (c *Control) readiness() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ready", c.answerReady)
	return mux
}

func (c *Control) answerReady(w http.ResponseWriter, _ *http.Request) {
	if p := c.ready.Pending(); len(p) > 0 {
		http.Error(w, "not ready, pending: "+strings.Join(p, ", "), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ready")
}

// scope is what a caller of the debug server may see.
type scope struct {
	all       bool
	namespace string
}

// sees reports whether things of a namespace are for the caller.
func (s scope) sees(namespace string) bool { return s.all || s.namespace == namespace }

// page makes what a debug page shows to a caller.
type page func(scope) any

// monitor serves metrics, readiness and the version to anybody; the debug pages to callers from this pod and, as far as
// they are about its own namespace, to any pod that shows its token; profiles to callers from this pod alone (SECURITY XD-05).
func (c *Control) monitor(d door, pages map[string]page) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(c.count.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, c.conf.Version) })
	mux.HandleFunc("GET /ready", c.answerReady)
	names := make([]string, 0, len(pages)+1)
	names = append(names, "/debug/list")
	for name, p := range pages {
		names = append(names, name)
		mux.HandleFunc("GET "+name, func(w http.ResponseWriter, r *http.Request) {
			if s, ok := c.scopeOf(w, r, d); ok {
				c.show(w, p(s))
			}
		})
	}
	slices.Sort(names)
	mux.HandleFunc("GET /debug/list", func(w http.ResponseWriter, r *http.Request) {
		if _, ok := c.scopeOf(w, r, d); ok {
			c.show(w, names)
		}
	})
	for name, h := range map[string]http.HandlerFunc{
		"/debug/pprof/": pprof.Index, "/debug/pprof/profile": pprof.Profile, "/debug/pprof/symbol": pprof.Symbol, "/debug/pprof/trace": pprof.Trace,
	} {
		mux.HandleFunc("GET "+name, func(w http.ResponseWriter, r *http.Request) {
			if !admin.FromHere(r) {
				http.NotFound(w, r)
				return
			}
			h(w, r)
		})
	}
	return mux
}

// scopeOf finds what a caller may see, or refuses it.
func (c *Control) scopeOf(w http.ResponseWriter, r *http.Request, d door) (scope, bool) {
	if admin.FromHere(r) {
		return scope{all: true}, true
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	caller, err := source.Caller{}, error(nil)
	if ok {
		if caller, err = c.conf.Callers.Verify(r.Context(), token); err == nil {
			err = d.rules.Alive(caller)
		}
	}
	if !ok || err != nil {
		c.conf.Log.Debug("debug page refused", "from", r.RemoteAddr, "page", r.URL.Path, "error", err)
		w.Header().Set("WWW-Authenticate", "Bearer")
		http.Error(w, "show the token of a pod (audience istio-ca), or ask from within this pod", http.StatusUnauthorized)
		return scope{}, false
	}
	return scope{all: caller.Namespace == c.conf.RootNamespace, namespace: caller.Namespace}, true
}

func (c *Control) show(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		c.conf.Log.Debug("debug page not sent", "error", err)
	}
}
