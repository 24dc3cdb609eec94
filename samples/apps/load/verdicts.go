package load

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"
)

// verdicts connects to a load's server again and again, and says "in" or "out" whenever that changes, until in ends.
func verdicts(ctx context.Context, in io.Reader, to string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer cancel()
		_, _ = io.Copy(io.Discard, in) // an error is an end too
	}()
	for last := ""; ctx.Err() == nil; time.Sleep(time.Millisecond) {
		now := "out"
		if let(ctx, to) == nil {
			now = "in"
		}
		if now != last {
			fmt.Println(now)
			last = now
		}
	}
	return nil
}

// let returns nil once a connection has brought a byte each way.
func let(ctx context.Context, to string) error {
	c, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", to)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	p := plan{end: serverFirst, up: 1, down: 1, seed: 1}
	if err := p.write(c); err != nil {
		return err
	}
	if _, err := c.Write(p.upBytes()); err != nil {
		return err
	}
	return expect(c, p.downBytes(), false)
}
