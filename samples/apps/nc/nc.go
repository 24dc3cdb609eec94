// Package nc connects a terminal or a pipe to a port, as the program of that name does.
package nc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"
)

// options are those of the command line.
type options struct {
	host, port string
	scan       bool // -z: connect, and no more
	verbose    bool // -v
	udp        bool // -u
	wait       time.Duration
}

// Run does what the arguments say: HOST PORT, with -z, -v and -w SECONDS. It returns the exit code.
func Run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	o, err := parse(args)
	if err != nil {
		fmt.Fprintf(stderr, "nc: %v\nusage: nc [-zuv] [-w SECONDS] HOST PORT\n", err)
		return 2
	}
	if err := o.run(ctx, stdin, stdout, stderr); err != nil {
		fmt.Fprintf(stderr, "nc: %v\n", err)
		return 1
	}
	return 0
}

func parse(args []string) (options, error) {
	var o options
	var rest []string
	for i := 0; i < len(args); i++ {
		a := args[i]
		if len(a) < 2 || a[0] != '-' {
			rest = append(rest, a)
			continue
		}
		for at := 1; at < len(a); at++ {
			switch a[at] {
			case 'z':
				o.scan = true
			case 'v':
				o.verbose = true
			case 'u':
				o.udp = true
			case 'n', 'N', '4': // names are not looked up back, output's end is passed on, and addresses are as they are
			case 'w', 'q':
				text := a[at+1:]
				if text == "" {
					if i++; i == len(args) {
						return o, fmt.Errorf("-%c needs seconds", a[at])
					}
					text = args[i]
				}
				n, err := strconv.Atoi(text)
				if err != nil || n < 0 {
					return o, fmt.Errorf("%q is no number of seconds", text)
				}
				if a[at] == 'w' {
					o.wait = time.Duration(n) * time.Second
				}
				at = len(a)
			default:
				return o, fmt.Errorf("option -%c is not known here", a[at])
			}
		}
	}
	if len(rest) != 2 {
		return o, errors.New("want a host and a port")
	}
	o.host, o.port = rest[0], rest[1]
	return o, nil
}

func (o options) run(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) error {
	to := net.JoinHostPort(o.host, o.port)
	network := "tcp"
	if o.udp {
		network = "udp"
	}
	c, err := (&net.Dialer{Timeout: o.wait}).DialContext(ctx, network, to)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if o.verbose {
		fmt.Fprintf(stderr, "Connection to %s %s port [%s] succeeded!\n", o.host, o.port, network)
	}
	if o.scan {
		return nil
	}
	go func() {
		_, _ = io.Copy(c, stdin) // a peer that left ends the other direction too
		if t, ok := c.(*net.TCPConn); ok {
			_ = t.CloseWrite()
		}
	}()
	b := make([]byte, 32<<10)
	for {
		if o.wait > 0 {
			if err := c.SetReadDeadline(time.Now().Add(o.wait)); err != nil {
				return err
			}
		}
		n, err := c.Read(b)
		if _, werr := stdout.Write(b[:n]); werr != nil {
			return werr
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, os.ErrDeadlineExceeded), err != nil && ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
	}
}
