// Package echo answers with what it was sent, over HTTP and plain TCP.
package echo

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// HTTP describes the request that reached it, a line for each fact; instance is who answers.
func HTTP(instance string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintf(w, "StatusCode=200\nHostname=%s\nMethod=%s\nURL=%s\nProto=%s\nHost=%s\nIP=%s\n",
			instance, r.Method, r.URL.RequestURI(), r.Proto, r.Host, r.RemoteAddr)
		names := make([]string, 0, len(r.Header))
		for name := range r.Header {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			for _, v := range r.Header[name] {
				fmt.Fprintf(w, "RequestHeader=%s:%s\n", name, v)
			}
		}
		fmt.Fprintln(w)
		_, _ = io.Copy(w, io.LimitReader(r.Body, 1<<20))
	})
}

// Text answers every request with one text.
func Text(text string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, text) })
}

// TCP sends each line back behind a prefix, on every address, until ctx ends.
func TCP(ctx context.Context, prefix string, addrs ...string) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, len(addrs))
	for _, a := range addrs {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", a)
		if err != nil {
			return fmt.Errorf("listen on %s: %w", a, err)
		}
		context.AfterFunc(ctx, func() { _ = l.Close() })
		wg.Go(func() { failed <- Accept(ctx, l, func(c net.Conn) { lines(c, prefix) }) })
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
}

// Accept serves each connection until l is closed, and closes it behind that. When ctx ends nobody has to wait for a client.
func Accept(ctx context.Context, l net.Listener, serve func(net.Conn)) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept on %s: %w", l.Addr(), err)
		}
		wg.Go(func() {
			defer c.Close()
			defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Now()) })()
			serve(c)
		})
	}
}

func lines(c net.Conn, prefix string) {
	in := bufio.NewScanner(c)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		if _, err := fmt.Fprintf(c, "%s%s\n", prefix, in.Text()); err != nil {
			return
		}
	}
}
