package witness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// Answer is what / says.
type Answer struct {
	Pod  string // who answers
	From string // the client, as the server sees it
	At   string // the address that was reached
	Host string // what the client called it
}

// web serves HTTP/1 and, for gRPC, HTTP/2 on one port.
func (w *Witness) web(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(out http.ResponseWriter, r *http.Request) {
		at, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		_ = json.NewEncoder(out).Encode(Answer{w.name, r.RemoteAddr, fmt.Sprint(at), r.Host}) // a client that left learns nothing
	})
	mux.HandleFunc("GET /seen", w.tell)
	mux.HandleFunc("GET /health", func(out http.ResponseWriter, _ *http.Request) {
		if w.sick.Load() {
			out.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("POST /health", func(_ http.ResponseWriter, r *http.Request) { w.sick.Store(r.FormValue("ok") == "false") })
	mux.HandleFunc("GET /linger", func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-w.let:
		case <-r.Context().Done():
		case <-ctx.Done():
		}
	})
	mux.HandleFunc("POST /linger", func(http.ResponseWriter, *http.Request) { w.letGo() })
	mux.HandleFunc("POST /grpc.health.v1.Health/Check", w.check)
	var p http.Protocols
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	s := http.Server{Handler: mux, Protocols: &p, ReadHeaderTimeout: 30 * time.Second}
	done := make(chan error, 1)
	go func() {
		<-ctx.Done()
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		done <- s.Shutdown(stop)
	}()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve HTTP on %s: %w", l.Addr(), err)
	}
	return <-done
}

// check answers gRPC's health check: a message of five bytes' head and one field, status 1 (serving) or 2.
func (w *Witness) check(out http.ResponseWriter, _ *http.Request) {
	status := byte(1)
	if w.sick.Load() {
		status = 2
	}
	out.Header().Set("Content-Type", "application/grpc")
	out.Header().Set("Trailer", "Grpc-Status")
	_, _ = out.Write([]byte{0, 0, 0, 0, 2, 1 << 3, status}) // a client that left learns nothing
	out.Header().Set("Grpc-Status", "0")
}
