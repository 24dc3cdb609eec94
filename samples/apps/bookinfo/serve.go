// Package bookinfo is a bookshop of four small services, the sample application of the mesh.
//
// Names, ports, paths and JSON keys are those of Istio's bookinfo, so that its manifests and walk-throughs work.
package bookinfo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"
)

// Config is what a service reads from its environment.
type Config struct {
	// Version of reviews and ratings: v1, v2 or v3. Default v1.
	Version string
	// Pod is the host name that reviews reports.
	Pod string
	// Details, Reviews and Ratings are base URLs of the other services.
	Details, Reviews, Ratings string
	Log                       *slog.Logger
}

// Services are the four programs by name.
func Services() map[string]func(Config) http.Handler {
	return map[string]func(Config) http.Handler{
		"productpage": Productpage, "details": Details, "reviews": Reviews, "ratings": Ratings,
	}
}

// Run serves h until ctx ends, then lets open requests finish for at most 5 s.
func Run(ctx context.Context, addr string, h http.Handler) error {
	srv := &http.Server{
		Addr: addr, Handler: h,
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		Protocols: protocols(),
	}
	done := make(chan error, 1)
	go func() {
		<-ctx.Done()
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		done <- srv.Shutdown(stop)
	}()
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", addr, err)
	}
	return <-done
}

func protocols() *http.Protocols {
	var p http.Protocols
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	return &p
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// The client is gone when this fails; there is nobody to tell.
	_ = json.NewEncoder(w).Encode(v)
}

// health answers the readiness path that all four services share.
func health(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"status": name + " is healthy"})
	}
}

// traced are the headers that belong to a trace or a user and travel on to the next service.
var traced = [...]string{
	"X-Request-Id", "Traceparent", "Tracestate", "Baggage", "B3", "X-B3-Traceid", "X-B3-Spanid", "X-B3-Parentspanid",
	"X-B3-Sampled", "X-B3-Flags", "End-User", "User-Agent", "Authorization", "Cookie",
}

// call fetches JSON from the next service on behalf of r.
func call(r *http.Request, url string, timeout time.Duration, out any) (int, error) {
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	for _, h := range traced {
		if v := r.Header.Values(h); len(v) > 0 {
			req.Header[h] = v
		}
	}
	resp, err := client().Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return resp.StatusCode, fmt.Errorf("%s answered %s", url, resp.Status)
	}
	if err := json.NewDecoder(http.MaxBytesReader(nil, resp.Body, 1<<20)).Decode(out); err != nil {
		return resp.StatusCode, fmt.Errorf("answer of %s: %w", url, err)
	}
	return resp.StatusCode, nil
}

// client opens a connection for each call, as the original services do: what a policy says of connections is then seen
// at once.
func client() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
}
