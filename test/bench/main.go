// Command bench measures the mesh beside what it is compared with: no proxy, the plainest of proxies, and Istio's ztunnel.
//
// Every lane is a pair of pods on two nodes of one local cluster, all up at once; rounds are interleaved, so that what
// disturbs one disturbs all. See decision 7.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"

	"github.com/ambit-mesh/ambit/local"
)

// config is what the command line says.
type config struct {
	bin, peer, record, profiles string
	rounds                      int
	much                        float64
	short                       bool
	only, load                  *regexp.Regexp
}

func main() {
	if status, handled := local.Dispatch(); handled {
		os.Exit(status) // Preflight probes the machine with this program
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	var c config
	var only, load string
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.StringVar(&c.bin, "bin", "", "directory of ambit's binaries; none: they are built")
	f.StringVar(&c.peer, "peer", "", "file of Istio's ztunnel, measured beside ours; none: it is left out")
	f.StringVar(&c.record, "record", "", "Markdown file to write the result into")
	f.StringVar(&c.profiles, "profiles", "", "directory for CPU profiles of our ztunnels, taken in a round that does not count")
	f.IntVar(&c.rounds, "rounds", 7, "interleaved rounds")
	f.BoolVar(&c.short, "short", false, "less of everything, and fail on ratios that are far off")
	f.StringVar(&load, "load", "", "regular expression of the loads to measure")
	f.StringVar(&only, "only", "", "regular expression of the measurements to make")
	if err := f.Parse(args); err != nil {
		return err
	}
	var err error
	if c.only, err = regexp.Compile(only); err != nil {
		return err
	}
	if c.load, err = regexp.Compile(load); err != nil {
		return err
	}
	for _, p := range local.Preflight(ctx) {
		return fmt.Errorf("this machine cannot run a local cluster: %s", p)
	}
	c.much = 1
	if c.short {
		c.rounds, c.much = min(c.rounds, 3), 0.25
	}
	r, err := measure(ctx, c)
	if r != nil {
		r.terminal(os.Stdout)
	}
	if err != nil {
		return err
	}
	if c.record != "" {
		if err := r.markdown(c.record); err != nil {
			return err
		}
		fmt.Println("recorded in", c.record)
	}
	if c.short {
		return errors.Join(r.farOff()...)
	}
	return nil
}

// measure makes all measurements.
func measure(ctx context.Context, c config) (*result, error) {
	start := time.Now()
	w, err := setUp(ctx, c)
	if err != nil {
		return nil, err
	}
	r := newResult(c, w.lanes)
	err = w.all(ctx, r)
	r.took = time.Since(start)
	return r, errors.Join(err, w.Close())
}

// all makes the measurements in the order in which they disturb each other least: memory before load.
func (w *world) all(ctx context.Context, r *result) error {
	for _, m := range []struct {
		name string
		f    func(context.Context, *result) error
	}{
		{"idle", w.idle},
		{"rounds", w.rounds},
		{"verify", w.verify},
		{"after", w.after},
		{"policy", w.policies},
		{"label", w.labels},
		{"cni", w.plugin},
		{"profiles", w.profiles},
	} {
		if !w.conf.only.MatchString(m.name) || w.conf.short && (m.name == "idle" || m.name == "after") { // test/budget holds memory
			continue
		}
		w.say("%s", m.name)
		if err := m.f(ctx, r); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", m.name, err), w.amiss(ctx))
		}
	}
	return nil
}
