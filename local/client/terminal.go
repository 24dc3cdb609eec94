package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// drain bounds how long output is awaited from what a program left behind on its terminal.
const drain = 200 * time.Millisecond

// ExecTerminal runs a program in a container on a terminal of its own, which the caller's terminal shows: it is raw
// meanwhile, so that every key reaches the program, and as before afterwards. Changes of its size are passed on.
func (c *Client) ExecTerminal(ctx context.Context, req ExecRequest, stdin, stdout *os.File) (code int, err error) {
	master, slave, err := OpenTerminal()
	if err != nil {
		return 0, fmt.Errorf("exec: make a terminal: %w", err)
	}
	defer master.Close()
	defer slave.Close()
	resize(stdin, master)
	back, err := raw(stdin)
	if err != nil {
		return 0, fmt.Errorf("exec: %w", err)
	}
	defer func() { err = errors.Join(err, back()) }()

	sized := make(chan os.Signal, 1)
	signal.Notify(sized, syscall.SIGWINCH)
	defer signal.Stop(sized)
	stopR, stopW, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer stopR.Close()
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() { keys(stdin, stopR, master) })
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-sized:
				resize(stdin, master)
			}
		}
	})
	shown := make(chan struct{})
	go func() {
		defer close(shown)
		_, _ = io.Copy(stdout, master) // ends with an error when nobody holds the other end
	}()
	req.TTY = true
	code, err = c.Exec(ctx, req, slave, slave, slave)
	close(done)
	// Nobody reads what is typed any more.
	err = errors.Join(err, stopW.Close(), slave.Close(), master.SetWriteDeadline(time.Now()))
	wg.Wait()
	select {
	case <-shown:
	case <-time.After(drain):
		err = errors.Join(err, master.Close())
		<-shown
	}
	return code, err
}

// IsTerminal tells whether a file is one.
func IsTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// keys copies what is typed until stop is closed at its other end or the terminal ends.
func keys(from, stop *os.File, to io.Writer) {
	fds := []unix.PollFd{{Fd: int32(from.Fd()), Events: unix.POLLIN}, {Fd: int32(stop.Fd()), Events: unix.POLLIN}}
	b := make([]byte, 4096)
	for {
		if _, err := unix.Poll(fds, -1); err != nil {
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return
		}
		if fds[1].Revents != 0 {
			return
		}
		n, err := from.Read(b)
		if err != nil {
			return
		}
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
	}
}

// OpenTerminal makes a terminal: what a program uses, and the side that shows it.
func OpenTerminal() (master, slave *os.File, err error) {
	if master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		return nil, nil, err
	}
	raw, err := master.SyscallConn()
	if err != nil {
		return nil, nil, errors.Join(err, master.Close())
	}
	var number int
	cerr := raw.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	})
	if err = errors.Join(cerr, err); err != nil {
		return nil, nil, errors.Join(err, master.Close())
	}
	// Not os.OpenFile: the program shall find it blocking, as every terminal.
	fd, err := unix.Open(fmt.Sprintf("/dev/pts/%d", number), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, errors.Join(err, master.Close())
	}
	return master, os.NewFile(uintptr(fd), "terminal"), nil
}

// resize gives one terminal the size of another; one without a size keeps its own.
func resize(from, to *os.File) {
	size, err := unix.IoctlGetWinsize(int(from.Fd()), unix.TIOCGWINSZ)
	if err != nil || size.Col == 0 {
		return
	}
	raw, err := to.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { _ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, size) }) // it is gone, or looks odd
}

// raw makes a terminal pass every key and byte on as it is, and gives the way back.
func raw(f *os.File) (back func() error, err error) {
	fd := int(f.Fd())
	was, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("read the terminal's mode: %w", err)
	}
	now := *was
	now.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	now.Oflag &^= unix.OPOST
	now.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	now.Cflag = now.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	now.Cc[unix.VMIN], now.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &now); err != nil {
		return nil, fmt.Errorf("change the terminal's mode: %w", err)
	}
	return func() error {
		if err := unix.IoctlSetTermios(fd, unix.TCSETS, was); err != nil {
			return fmt.Errorf("restore the terminal: %w", err)
		}
		return nil
	}, nil
}
