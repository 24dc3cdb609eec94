package filter

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/ambit-mesh/ambit/gateway/internal/access"
	"github.com/ambit-mesh/ambit/gateway/internal/canon"
	"github.com/ambit-mesh/ambit/gateway/internal/table"
)

// Rewrite changes the host and path that the backend sees. It is the last filter: conditions and policies have seen
// the path that the client asked for.
func Rewrite(next Handler) Handler {
	return HandlerFunc(func(x *Exchange) (*http.Response, error) {
		w := x.Route.Rule.Rewrite
		if w == nil {
			return next.Serve(x)
		}
		path, err := canon.Path(NewPath(w, x.Route.Prefix, x.Request.URL.EscapedPath()), canon.Base)
		if err != nil {
			return nil, &Failure{Status: http.StatusBadRequest, Details: "path_rewrite_failed", Cause: err}
		}
		if err := SetPath(x.Request.URL, path); err != nil {
			return nil, &Failure{Status: http.StatusBadRequest, Details: "path_rewrite_failed", Cause: err}
		}
		if w.Host != "" {
			x.Request.Header.Set("X-Forwarded-Host", x.Authority)
			x.Request.Host = w.Host
		}
		return next.Serve(x)
	})
}

// NewPath is the path after a rewrite. prefix is the part that the condition matched; empty means the whole path.
func NewPath(w *table.Rewrite, prefix, path string) string {
	switch {
	case w.Path != nil:
		path = *w.Path
	case w.Regex != nil:
		path = w.Regex.ReplaceAllString(path, w.Substitution)
	case w.Prefix != nil:
		path = ReplacePrefix(*w.Prefix, prefix, path)
	}
	return oneSlash(path)
}

// ReplacePrefix puts to in the place of prefix without doubling the slash between them.
func ReplacePrefix(to, prefix, path string) string {
	rest := ""
	if prefix != "" && len(path) >= len(prefix) {
		rest = path[len(prefix):]
	}
	if strings.HasSuffix(to, "/") {
		rest = strings.TrimPrefix(rest, "/")
	}
	return to + rest
}

// oneSlash keeps a rewritten path from being read as the start of an authority.
func oneSlash(p string) string { return "/" + strings.TrimLeft(p, "/") }

// SetPath puts a canonical path into a URL so that it is written as it stands.
func SetPath(u *url.URL, canonical string) error {
	plain, err := url.PathUnescape(canonical)
	if err != nil {
		return err
	}
	u.Path, u.RawPath, u.Opaque = plain, canonical, ""
	return nil
}

// Direct answers rules that carry their own response.
func Direct(next Handler) Handler {
	return HandlerFunc(func(x *Exchange) (*http.Response, error) {
		d := x.Route.Rule.Direct
		if d == nil {
			return next.Serve(x)
		}
		x.Record.Details = "direct_response"
		resp := reply(int(d.GetStatus()), string(d.GetBody()))
		Apply(resp.Header, x.Route.Rule.ResponseHeaders)
		return resp, nil
	})
}

func reply(status int, body string) *http.Response {
	h := http.Header{}
	if body != "" {
		h.Set("Content-Type", "text/plain")
	}
	return &http.Response{
		StatusCode: status, Header: h, ContentLength: int64(len(body)),
		Body: struct {
			*strings.Reader
			nopCloser
		}{strings.NewReader(body), nopCloser{}},
	}
}

type nopCloser struct{}

func (nopCloser) Close() error { return nil }

// Reply is the response of a failure, in the words of the caller's protocol.
func (f *Failure) Reply(r *access.Record, grpc bool) *http.Response {
	for _, flag := range f.Flags {
		r.Flag(flag)
	}
	r.Details, r.TransportFailure = f.Details, f.Transport
	resp := reply(f.Status, f.Body)
	for name, v := range f.Header {
		resp.Header[name] = v
	}
	if grpc {
		return asGRPC(resp, f.Body)
	}
	return resp
}
