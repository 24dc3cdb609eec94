// Command ambit-sample is every sample application in one small binary.
//
// The first argument, or the name it is called by, chooses the applet; environment and arguments are those of the
// images that the applets stand for.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/mccutchen/go-httpbin/v2/httpbin"

	"github.com/ambit-mesh/ambit/samples/apps/bookinfo"
	"github.com/ambit-mesh/ambit/samples/apps/curl"
	"github.com/ambit-mesh/ambit/samples/apps/echo"
	"github.com/ambit-mesh/ambit/samples/apps/helloworld"
	"github.com/ambit-mesh/ambit/samples/apps/load"
	"github.com/ambit-mesh/ambit/samples/apps/nc"
	"github.com/ambit-mesh/ambit/samples/apps/witness"
)

// applet runs until it is done or ctx ends, and returns the exit code.
type applet func(ctx context.Context, args []string) (int, error)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	name, args := filepath.Base(os.Args[0]), os.Args[1:]
	all := applets()
	run, ok := all[name]
	if !ok && len(args) > 0 {
		name, args = args[0], args[1:]
		run, ok = all[name]
	}
	if !ok {
		names := make([]string, 0, len(all))
		for n := range all {
			names = append(names, n)
		}
		slices.Sort(names)
		fmt.Fprintf(os.Stderr, "ambit-sample: want an applet: %s\n", strings.Join(names, " "))
		os.Exit(2)
	}
	code, err := run(ctx, args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func applets() map[string]applet {
	all := map[string]applet{
		"curl": func(ctx context.Context, args []string) (int, error) {
			return curl.Run(ctx, args, os.Stdout, os.Stderr), nil
		},
		"nc": func(ctx context.Context, args []string) (int, error) {
			return nc.Run(ctx, args, os.Stdin, os.Stdout, os.Stderr), nil
		},
		"sleep":      func(ctx context.Context, args []string) (int, error) { return 0, sleep(ctx, args) },
		"httpbin":    serve(":8080", func([]string) http.Handler { return httpbin.New().Handler() }),
		"helloworld": serve(":5000", func([]string) http.Handler { return helloworld.Handler(env("SERVICE_VERSION", "v1"), host()) }),
		"echo":       serve(":8080", func([]string) http.Handler { return echo.HTTP(host()) }),
		"http-echo": serve(":5678", func(args []string) http.Handler {
			return echo.Text(option(args, "text", "hello-world"))
		}),
		"tcp-echo": tcpEcho,
		"load":     func(ctx context.Context, args []string) (int, error) { return 0, load.Run(ctx, args) },
		"witness":  func(ctx context.Context, args []string) (int, error) { return 0, witness.Run(ctx, host(), args) },
	}
	for name, h := range bookinfo.Services() {
		all[name] = serve(":9080", func(args []string) http.Handler { return h(bookinfoConfig(args)) })
	}
	return all
}

// serve makes an applet of a handler. --port N, PORT or the last argument that is a number says where to listen.
func serve(addr string, h func(args []string) http.Handler) applet {
	return func(ctx context.Context, args []string) (int, error) {
		log := slog.New(slog.NewTextHandler(os.Stdout, nil))
		listen := addr
		if p := option(args, "port", os.Getenv("PORT")); p != "" {
			listen = ":" + p
		}
		listen = option(args, "listen", listen)
		log.Info("serving", "address", listen)
		handler := h(args)
		return 0, bookinfo.Run(ctx, listen, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			log.Info("request", "method", r.Method, "path", r.URL.Path, "host", r.Host, "from", r.RemoteAddr)
			handler.ServeHTTP(w, r)
		}))
	}
}

func bookinfoConfig(args []string) bookinfo.Config {
	domain := os.Getenv("SERVICES_DOMAIN")
	if domain != "" {
		domain = "." + domain
	}
	url := func(name, upper string) string {
		return "http://" + net.JoinHostPort(env(upper+"_HOSTNAME", name)+domain, env(upper+"_SERVICE_PORT", "9080"))
	}
	return bookinfo.Config{
		Version: option(args, "version", env("SERVICE_VERSION", "v1")), Pod: host(),
		Details: url("details", "DETAILS"), Reviews: url("reviews", "REVIEWS"), Ratings: url("ratings", "RATINGS"),
		Log: slog.New(slog.NewTextHandler(os.Stdout, nil)),
	}
}

// sleep takes "infinity", seconds, or seconds with a unit, as coreutils' does; several add up.
func sleep(ctx context.Context, args []string) error {
	var total time.Duration
	for _, a := range args {
		if a == "infinity" || a == "inf" {
			<-ctx.Done()
			return nil
		}
		unit := a
		if strings.TrimRight(a, "0123456789.") == a {
			return fmt.Errorf("invalid time interval %q", a)
		}
		if strings.HasSuffix(a, "d") {
			return fmt.Errorf("invalid time interval %q: give hours", a)
		}
		if c := a[len(a)-1]; c >= '0' && c <= '9' {
			unit += "s"
		}
		d, err := time.ParseDuration(unit)
		if err != nil {
			return fmt.Errorf("invalid time interval %q", a)
		}
		total += d
	}
	select {
	case <-ctx.Done():
	case <-time.After(total):
	}
	return nil
}

// tcpEcho takes ports, comma separated, and a greeting: "9000,9001 hello".
func tcpEcho(ctx context.Context, args []string) (int, error) {
	ports, prefix := "9000", ""
	if len(args) > 0 {
		ports = args[0]
	}
	if len(args) > 1 {
		prefix = args[1] + " "
	}
	var addrs []string
	for p := range strings.SplitSeq(ports, ",") {
		addrs = append(addrs, ":"+p)
	}
	return 0, echo.TCP(ctx, prefix, addrs...)
}

// option finds -name=v, --name v and the like.
func option(args []string, name, otherwise string) string {
	for i, a := range args {
		a, v, has := strings.Cut(strings.TrimLeft(a, "-"), "=")
		switch {
		case a != name:
		case has:
			return v
		case i+1 < len(args):
			return args[i+1]
		}
	}
	return otherwise
}

func env(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// host is the pod's name.
func host() string {
	if h := os.Getenv("HOSTNAME"); h != "" {
		return h
	}
	h, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return h
}
