package filter

import (
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/ambit-mesh/ambit/api/l7"
	"github.com/ambit-mesh/ambit/gateway/internal/canon"
)

// Redirect answers rules that send the client elsewhere. Location is always absolute, so that no path of the client's
// can be read as a host, and consists of canonical parts.
func Redirect(next Handler) Handler {
	return HandlerFunc(func(x *Exchange) (*http.Response, error) {
		r := x.Route.Rule.Redirect
		if r == nil {
			return next.Serve(x)
		}
		x.Record.Details = "direct_response"
		resp := reply(int(r.GetCode()), "")
		resp.Header.Set("Location", Location(r, x))
		Apply(resp.Header, x.Route.Rule.ResponseHeaders)
		return resp, nil
	})
}

// Location is where a redirect leads.
func Location(r *l7.Redirect, x *Exchange) string {
	from := x.Request.URL
	scheme := from.Scheme
	if r.GetScheme() != "" {
		scheme = strings.ToLower(r.GetScheme())
	}
	host, port := x.Host, 0
	if _, p, err := canon.Host(x.Authority); err == nil {
		port = int(p)
	}
	if r.GetHost() != "" {
		host, port = r.GetHost(), 0
		if h, p, err := canon.Host(r.GetHost()); err == nil {
			host, port = h, int(p)
		}
	}
	switch {
	case r.GetPort() != 0:
		port = int(r.GetPort())
	case r.GetProtocolDefaultPort(), scheme != from.Scheme && (port == 80 || port == 443):
		port = 0
	}
	if scheme == "http" && port == 80 || scheme == "https" && port == 443 {
		port = 0
	}
	path := from.EscapedPath()
	switch k := r.GetPathKind().(type) {
	case *l7.Redirect_Path:
		path = k.Path
	case *l7.Redirect_Prefix:
		path = oneSlash(ReplacePrefix(k.Prefix, x.Route.Prefix, path))
	}
	path, query, has := strings.Cut(path, "?")
	if !has {
		query = from.RawQuery
	}
	to := scheme + "://" + join(host, port) + path
	if query != "" {
		to += "?" + query
	}
	return to
}

func join(host string, port int) string {
	if port != 0 {
		return net.JoinHostPort(host, strconv.Itoa(port))
	}
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}
