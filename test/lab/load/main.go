// Command load is what measuring and proving runs inside pods: a server that counts, and clients that say what they met.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

// options of every applet; each takes what it needs.
type options struct {
	to           string
	at           string
	control      string
	conns, count int
	bytes        int64
	size         int
	length       time.Duration
	verify, down bool
}

func run(ctx context.Context, args []string) error {
	applets := map[string]func(context.Context, options) error{
		"serve":   func(ctx context.Context, o options) error { return serve(ctx, o.at, o.control) },
		"stats":   func(ctx context.Context, o options) error { return stats(ctx, o.control) },
		"relay":   func(ctx context.Context, o options) error { return relay(ctx, o.at, o.to) },
		"bulk":    func(ctx context.Context, o options) error { return answer(bulk(ctx, o)) },
		"rr":      func(ctx context.Context, o options) error { return answer(roundTrips(ctx, o)) },
		"connect": func(ctx context.Context, o options) error { return answer(connect(ctx, o)) },
		"idle":    func(ctx context.Context, o options) error { return idle(ctx, o) },
		"cni":     func(ctx context.Context, o options) error { return answer(cni(ctx, o)) },
		"ask":     func(ctx context.Context, o options) error { return answer(ask(ctx, o.to), nil) },
		"watch":   func(ctx context.Context, o options) error { return watch(ctx, o.to) },
	}
	if len(args) == 0 || applets[args[0]] == nil {
		return fmt.Errorf("want an applet: serve, stats, relay, bulk, rr, connect, idle, cni, ask or watch")
	}
	var o options
	f := flag.NewFlagSet(args[0], flag.ContinueOnError)
	f.StringVar(&o.to, "to", "", "address to connect to")
	f.StringVar(&o.at, "at", ":9000", "address to listen at")
	f.StringVar(&o.control, "control", "127.0.0.1:9001", "address of the server's counters")
	f.IntVar(&o.conns, "conns", 1, "connections at a time")
	f.IntVar(&o.count, "count", 1000, "connections in all")
	f.Int64Var(&o.bytes, "bytes", 1<<28, "bytes of all connections together")
	f.IntVar(&o.size, "size", 128, "bytes of a message")
	f.DurationVar(&o.length, "for", time.Second, "how long")
	f.BoolVar(&o.verify, "verify", false, "compare hashes of both ends")
	f.BoolVar(&o.down, "down", false, "from the server to the client")
	if err := f.Parse(args[1:]); err != nil {
		return err
	}
	return applets[args[0]](ctx, o)
}

// answer is an applet's result, one line of JSON.
func answer(v any, err error) error {
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(v)
}
