// Package load offers connections at a steady rate and says exactly what became of each, for tests that break things
// meanwhile.
package load

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"time"
)

const usage = `want one of
  load serve ADDRESS                 answer connections, and tell on ADDRESS's port + 1 what was seen
  load offer [flags] ADDRESS         offer connections until standard input ends, then print a Report as JSON
  load ready LISTEN                  offer as GET /begin?flag=value&to=ADDRESS says; GET /end answers with the Report
  load first [-to ADDRESS -mark M]   say at once, as JSON, whether the network is captured; then send M every 100 ms
  load verdicts ADDRESS              connect again and again, and say "in" or "out" when that changes, until standard input ends
  load fetch [flags] ADDRESS         fetch many bytes over one connection, and print Poured as JSON
  load sip [flags] ADDRESS           read a byte a second of each of some connections, until standard input ends`

// Run does what its arguments say.
func Run(ctx context.Context, args []string) error {
	if len(args) < 2 && !slices.Equal(args, []string{"first"}) {
		return errors.New(usage)
	}
	switch args[0] {
	case "serve":
		return serve(ctx, args[1])
	case "offer":
		return offerCommand(ctx, args[1:])
	case "ready":
		return ready(ctx, args[1])
	case "first":
		return firstCommand(ctx, args[1:])
	case "verdicts":
		return verdicts(ctx, os.Stdin, args[1])
	case "fetch":
		return fetchCommand(ctx, args[1:])
	case "sip":
		return sipCommand(ctx, args[1:])
	}
	return fmt.Errorf("unknown command %q: %s", args[0], usage)
}

// flags are those of an offer.
func (o *offer) flags() *flag.FlagSet {
	f := flag.NewFlagSet("offer", flag.ContinueOnError)
	f.IntVar(&o.rate, "rate", 100, "new connections a second")
	f.IntVar(&o.long, "long", 0, "connections held open, with a message each way every 100 ms")
	f.IntVar(&o.size, "size", 4<<10, "largest random number of bytes each way of a new connection")
	f.IntVar(&o.most, "count", 0, "end after so many new connections; 0: when it is told to")
	f.BoolVar(&o.rude, "rude", false, "let some connections be reset by either end, midway")
	f.DurationVar(&o.wait, "timeout", 10*time.Second, "longest life of a new connection")
	return f
}

func offerCommand(ctx context.Context, args []string) error {
	var o offer
	f := o.flags()
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() != 1 {
		return fmt.Errorf("offer: want one ADDRESS")
	}
	o.target = f.Arg(0)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if o.most == 0 {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			cancel()
		}()
	}
	return json.NewEncoder(os.Stdout).Encode(o.run(ctx))
}
