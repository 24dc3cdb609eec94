package admin

import (
	"net"
	"net/http"
	"net/url"
	"strings"
)

// guarded refuses what a web page of elsewhere could make a browser send here: a foreign Host (DNS rebinding), another
// site's Origin, or what the browser itself calls of another site. It also keeps pages from being framed or run.
func guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; style-src 'unsafe-inline'")
		h.Set("Cache-Control", "no-store")
		switch {
		case !loopback(r.Host):
			plain(w, http.StatusForbidden, "this server answers to localhost only\n")
		case foreign(r):
			plain(w, http.StatusForbidden, "requests of other sites are refused\n")
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// FromHere reports whether a request comes from this machine, and from no web page of elsewhere.
func FromHere(r *http.Request) bool {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	return err == nil && net.ParseIP(host).IsLoopback() && loopback(r.Host) && !foreign(r)
}

func foreign(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
	default:
		return true
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false
	}
	u, err := url.Parse(origin)
	return err != nil || u.Host != r.Host
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
