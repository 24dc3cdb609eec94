package load

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// ready offers when it is told to over HTTP, so that a load outlives whoever asked for it.
func ready(ctx context.Context, listen string) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
	if err != nil {
		return err
	}
	r := &obedient{ctx: ctx}
	mux := http.NewServeMux()
	mux.HandleFunc("/begin", r.begin)
	mux.HandleFunc("/end", r.end)
	web := http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	context.AfterFunc(ctx, func() { _ = web.Close() })
	fmt.Println("ready on", listen)
	if err := web.Serve(l); ctx.Err() == nil {
		return err
	}
	return nil
}

// obedient has one offer at a time.
type obedient struct {
	ctx context.Context //nolint:containedctx // of the program: offers live longer than the requests that begin them

	mu     sync.Mutex
	cancel context.CancelFunc
	report chan Report
}

func (r *obedient) begin(w http.ResponseWriter, q *http.Request) {
	var o offer
	f := o.flags()
	for name, values := range q.URL.Query() {
		if name == "to" {
			o.target = values[0]
		} else if err := f.Set(name, values[0]); err != nil {
			http.Error(w, name+": "+err.Error(), http.StatusBadRequest)
			return
		}
	}
	if o.target == "" {
		http.Error(w, "to: want the ADDRESS", http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cancel != nil {
		http.Error(w, "an offer has begun already: GET /end first", http.StatusConflict)
		return
	}
	ctx, cancel := context.WithCancel(r.ctx)
	r.cancel, r.report = cancel, make(chan Report, 1)
	go func(to chan<- Report) { to <- o.run(ctx) }(r.report)
	fmt.Fprintln(w, "begun")
}

func (r *obedient) end(w http.ResponseWriter, _ *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cancel == nil {
		http.Error(w, "no offer has begun: GET /begin first", http.StatusConflict)
		return
	}
	r.cancel()
	_ = json.NewEncoder(w).Encode(<-r.report)
	r.cancel, r.report = nil, nil
}
