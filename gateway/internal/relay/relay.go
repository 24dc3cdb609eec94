package relay

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/api/l7"
	"github.com/ambit-mesh/ambit/gateway/internal/access"
	"github.com/ambit-mesh/ambit/gateway/internal/canon"
	"github.com/ambit-mesh/ambit/gateway/internal/filter"
	"github.com/ambit-mesh/ambit/gateway/internal/listen"
	"github.com/ambit-mesh/ambit/gateway/internal/table"
)

// Relay serves requests by a table.
type Relay struct {
	Table  func() *table.Table
	Chain  filter.Handler
	Edge   Edge
	Paths  canon.Mode
	Report func(*access.Record) // called once at the end of each request
	Log    *slog.Logger

	buffers sync.Pool // of *[]byte
}

// bufferSize is what a response in flight holds: a frame; more would be held for each client that does not read.
const bufferSize = 16 << 10

func (p *Relay) buffer() *[]byte {
	if b, ok := p.buffers.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, bufferSize)
	return &b
}

// ServeHTTP answers one request.
func (p *Relay) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	info := listen.InfoOf(r.Context())
	rec := newRecord(r, info)
	rec.GRPC = filter.IsGRPC(r.Header)
	in := &counter{ReadCloser: r.Body, grpc: rec.GRPC}
	if r.Body != http.NoBody {
		r.Body = in
	}
	defer func() {
		rec.Duration = time.Since(rec.Start)
		rec.BytesReceived += in.n.Load()
		rec.MessagesReceived = in.seen()
		p.Report(rec)
	}()
	resp, err := p.answer(w, r, info, rec)
	if errors.Is(err, errHijacked) {
		return
	}
	if err != nil {
		var f *filter.Failure
		if !errors.As(err, &f) {
			f = &filter.Failure{Status: http.StatusInternalServerError, Details: "internal_error", Cause: err}
			p.Log.Error("request failed inside the proxy", "path", rec.Path, "error", err)
		}
		resp = f.Reply(rec, rec.GRPC)
		if f.Status == 0 {
			panic(http.ErrAbortHandler) // the client has gone: there is nobody to answer
		}
		if malformed(in) {
			rec.Flag(access.DownstreamProtocol)
			resp = (&filter.Failure{Status: http.StatusBadRequest, Details: "http1.codec_error"}).Reply(rec, rec.GRPC)
		}
	}
	if rec.UpstreamTime == 0 && (resp.StatusCode == http.StatusBadRequest || resp.StatusCode == http.StatusMethodNotAllowed) {
		w.Header().Set("Connection", "close") // a client that sends such things gets no second try here
	}
	p.respond(w, r, resp, rec)
}

// answer decides: everything that can be refused without a backend is refused here.
func (p *Relay) answer(w http.ResponseWriter, r *http.Request, info *listen.Info, rec *access.Record) (*http.Response, error) {
	if r.Method == http.MethodConnect {
		return nil, &filter.Failure{Status: http.StatusMethodNotAllowed, Details: "connect_not_served"}
	}
	if err := sane(r); err != nil {
		return nil, err
	}
	scheme := "http"
	if info.TLS != nil {
		scheme = "https"
	}
	raw, query, _ := strings.Cut(r.RequestURI, "?")
	path, err := canon.Path(raw, p.Paths)
	if err != nil || strings.ContainsRune(query, '#') {
		return nil, &filter.Failure{Status: http.StatusBadRequest, Details: "path_normalization_failed", Cause: err}
	}
	host, _, err := canon.Host(r.Host)
	if err != nil {
		return nil, &filter.Failure{Status: http.StatusBadRequest, Details: "invalid_host", Cause: err}
	}
	upgrade := wantsUpgrade(r)
	r.Header = r.Header.Clone()
	stripHop(r.Header)
	stripAmbiguous(r.Header)
	p.Edge.stamp(r.Header, scheme, info)
	rec.RequestID, rec.ForwardedFor = r.Header.Get("X-Request-Id"), r.Header.Get("X-Forwarded-For")

	t := p.Table()
	port := listen.PortOf(t, info.Port)
	if port == nil {
		return nil, notFound("the listener is gone")
	}
	l := port.Plain(host)
	if info.TLS != nil {
		if l = port.ForSNI(strings.ToLower(strings.TrimSuffix(info.ServerName, "."))); l != nil && !l.Serves(host) {
			return nil, &filter.Failure{Status: http.StatusMisdirectedRequest, Details: "sni_and_host_differ"}
		}
	}
	if l == nil {
		return nil, notFound("no listener for this host")
	}
	q := &table.Query{
		Host: host, Authority: strings.ToLower(r.Host), Path: path, RawQuery: query, Scheme: scheme,
		Method: r.Method, Header: r.Header, Port: l.GetServicePort(),
	}
	route, ok := l.Set.Match(q)
	u := &url.URL{Scheme: scheme, Host: r.Host, RawQuery: query}
	if err := filter.SetPath(u, path); err != nil {
		return nil, &filter.Failure{Status: http.StatusBadRequest, Details: "path_normalization_failed", Cause: err}
	}
	out := r.WithContext(r.Context())
	out.URL, out.Close, out.TransferEncoding, out.Trailer = u, false, nil, nil
	x := &filter.Exchange{Request: out, Route: route, Host: host, Authority: r.Host, Record: rec}
	if route.Host != nil && route.Host.HTTPSRedirect && scheme == "http" {
		return httpsRedirect(x), nil
	}
	if !ok {
		return nil, notFound("no rule matches")
	}
	if rec.RouteName = route.Rule.Name; rec.RouteName == "" {
		rec.RouteName = "default"
	}
	if f := route.Rule.Forward; f != nil {
		if x.Destination = f.Pick(rand.Uint64()); x.Destination == nil {
			return nil, &filter.Failure{Status: http.StatusServiceUnavailable, Flags: []string{access.NoCluster}, Details: "cluster_not_found"}
		}
		if x.Destination.GetBackend() == "" {
			return nil, &filter.Failure{Status: http.StatusInternalServerError, Flags: []string{access.NoCluster}, Details: "no_backend"}
		}
		x.Backend = t.Backends[x.Destination.GetBackend()]
	}
	if upgrade && route.Rule.Forward != nil {
		return p.upgrade(w, x)
	}
	resp, err := p.Chain.Serve(x)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		resp.Body.Close()
		return nil, badUpgrade("the backend switched protocols unasked")
	}
	for name := range resp.Header {
		if strings.HasPrefix(name, "X-Envoy-") {
			delete(resp.Header, name) // they are between proxies
		}
	}
	return resp, nil
}

func notFound(why string) error {
	return &filter.Failure{Status: http.StatusNotFound, Flags: []string{access.NoRoute}, Details: "route_not_found", Cause: errors.New(why)}
}

func httpsRedirect(x *filter.Exchange) *http.Response {
	to := &l7.Redirect{Code: http.StatusMovedPermanently, Scheme: "https", ProtocolDefaultPort: true}
	x.Record.Details = "direct_response"
	return &http.Response{StatusCode: int(to.Code), Header: http.Header{"Location": {filter.Location(to, x)}}, Body: http.NoBody}
}

func newRecord(r *http.Request, info *listen.Info) *access.Record {
	return &access.Record{
		Start: time.Now(), Method: r.Method, Path: r.RequestURI, Protocol: r.Proto, UserAgent: r.UserAgent(), Authority: r.Host,
		DownstreamLocal: info.Local.String(), DownstreamRemote: info.Remote.String(), ServerName: info.ServerName, Details: "via_upstream",
	}
}

// respond writes a response as it comes: each piece that the backend sent goes on at once.
func (p *Relay) respond(w http.ResponseWriter, r *http.Request, resp *http.Response, rec *access.Record) {
	defer resp.Body.Close()
	h := w.Header()
	stripHop(resp.Header)
	for name, v := range resp.Header {
		h[name] = v
	}
	h.Set("Server", "istio-envoy")
	if rec.UpstreamTime > 0 {
		h.Set("X-Envoy-Upstream-Service-Time", strconv.FormatInt(rec.UpstreamTime.Milliseconds(), 10))
	}
	if r.Method != http.MethodHead && resp.StatusCode != http.StatusNotModified {
		contentLength(h, resp.ContentLength)
	}
	rec.Status = resp.StatusCode
	rec.GRPCStatus = resp.Header.Get("Grpc-Status")
	w.WriteHeader(resp.StatusCode)
	var sent messages
	buf := p.buffer()
	n, err := stream(w, resp.Body, *buf, func(p []byte) {
		if rec.GRPC {
			sent.see(p)
		}
	})
	p.buffers.Put(buf)
	rec.BytesSent, rec.MessagesSent = n, sent.n
	if err != nil {
		p.broken(r.Context(), err, rec)
		panic(http.ErrAbortHandler) // a cut response must not look complete
	}
	for name, v := range resp.Trailer {
		h[http.TrailerPrefix+name] = v
		if name == "Grpc-Status" && len(v) > 0 {
			rec.GRPCStatus = v[0]
		}
	}
}

// broken says in the record why a response was cut.
func (p *Relay) broken(ctx context.Context, err error, rec *access.Record) {
	var w *writeError
	switch {
	case errors.As(err, &w), ctx.Err() != nil:
		rec.Flag(access.DownstreamTerminated)
		rec.Details = "downstream_remote_disconnect"
	case len(rec.Flags) == 0:
		rec.Flag(access.UpstreamTermination)
		rec.Details = "upstream_reset_after_response_started{connection_termination}"
		rec.TransportFailure = err.Error()
	}
}

type writeError struct{ error }

// stream copies a body without keeping more of it than one buffer.
func stream(w http.ResponseWriter, body io.Reader, buf []byte, see func([]byte)) (int64, error) {
	if body == http.NoBody {
		return 0, nil
	}
	flush := http.NewResponseController(w)
	var total int64
	for {
		n, err := body.Read(buf)
		if n > 0 {
			see(buf[:n])
			m, werr := w.Write(buf[:n])
			total += int64(m)
			if werr == nil && err != io.EOF {
				werr = flush.Flush()
			}
			if werr != nil {
				return total, &writeError{werr}
			}
		}
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}
