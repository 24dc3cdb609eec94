package load

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

// First is what a program saw as its first act.
type First struct {
	// At is when, in Unix nanoseconds.
	At int64
	// Captured: the proxy's port for outbound connections was open in the program's network.
	Captured bool
}

// firstCommand looks at its network, says what it sees, and then says its mark to an address again and again, for
// whoever listens on the wire.
func firstCommand(ctx context.Context, args []string) error {
	at := time.Now().UnixNano()
	f := flag.NewFlagSet("first", flag.ContinueOnError)
	to := f.String("to", "", "ADDRESS to say the mark to, every 100 ms; empty: say nothing")
	mark := f.String("mark", "", "the mark")
	if err := f.Parse(args); err != nil {
		return err
	}
	captured, err := listens("3A99") // 15001
	if err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(First{at, captured}); err != nil {
		return err
	}
	for {
		if *to != "" {
			say(ctx, *to, *mark)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// say does what it can: that nothing comes through is as it may be.
func say(ctx context.Context, to, mark string) {
	c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", to)
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = c.Write([]byte(mark))
	_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	_, _ = c.Read(make([]byte, 1))
}

// listens tells whether a TCP socket of this network namespace listens on a port, in the kernel's hexadecimal.
func listens(port string) (bool, error) {
	for _, name := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		file, err := os.Open(name)
		if errors.Is(err, os.ErrNotExist) {
			continue // no IPv6
		}
		if err != nil {
			return false, fmt.Errorf("look for the proxy: %w", err)
		}
		for s := bufio.NewScanner(file); s.Scan(); {
			const listen = "0A"
			if f := strings.Fields(s.Text()); len(f) > 3 && strings.HasSuffix(f[1], ":"+port) && f[3] == listen {
				_ = file.Close()
				return true, nil
			}
		}
		_ = file.Close()
	}
	return false, nil
}
