package load

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// Poured is how fast one connection brought many bytes.
type Poured struct{ MiB, Seconds float64 }

// fetchCommand downloads size MiB over one connection, and prints Poured as JSON.
func fetchCommand(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("fetch", flag.ContinueOnError)
	size := f.Int("mib", 256, "MiB to fetch")
	if err := f.Parse(args); err != nil {
		return err
	}
	c, p, err := begin(ctx, f.Arg(0), *size)
	if err != nil {
		return err
	}
	defer c.Close()
	want, start := noise(p.seed, 1<<20), time.Now()
	for n := range *size {
		if err := expect(c, want, n == *size-1); err != nil {
			return fmt.Errorf("MiB %d: %w", n, err)
		}
	}
	return json.NewEncoder(os.Stdout).Encode(Poured{float64(*size), time.Since(start).Seconds()})
}

// sipCommand opens connections that could have a GiB each, and reads a byte a second of each until standard input ends.
func sipCommand(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("sip", flag.ContinueOnError)
	n := f.Int("n", 1, "connections")
	if err := f.Parse(args); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	var wg sync.WaitGroup
	errs := make(chan error, *n)
	for range *n {
		wg.Go(func() { errs <- sip(ctx, f.Arg(0)) })
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func sip(ctx context.Context, target string) error {
	c, _, err := begin(ctx, target, 1<<10)
	if err != nil {
		return err
	}
	defer c.Close()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var one [1]byte
	for {
		if _, err := c.Read(one[:]); err != nil {
			return fmt.Errorf("slow reader: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// begin connects and asks for size MiB.
func begin(ctx context.Context, target string, size int) (net.Conn, plan, error) {
	if target == "" {
		return nil, plan{}, errors.New("want one ADDRESS")
	}
	p := plan{end: bulk, down: uint32(size), seed: 7} //nolint:gosec // small
	c, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", target)
	if err != nil {
		return nil, p, err
	}
	return c, p, p.write(c)
}
