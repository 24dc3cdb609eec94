package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/linux/link"
)

// Inside tells whether this process was started to be the inner one.
func Inside() bool { return len(os.Args) > 0 && filepath.Base(os.Args[0]) == Name }

// Inner is the inner end, given to the function that Main runs.
type Inner struct {
	Args  []string
	ready *os.File
	once  sync.Once
}

// Ready tells the outer process that the inside is up.
func (in *Inner) Ready() error {
	err := error(nil)
	in.once.Do(func() {
		_, werr := in.ready.WriteString("ready")
		err = errors.Join(werr, in.ready.Close())
	})
	return err
}

// Main makes the inside ready and runs f until it returns, a signal comes or the outer process is gone. The result is
// the exit status.
func Main(log *slog.Logger, f func(ctx context.Context, in *Inner) error) int {
	life, ready := os.NewFile(3, "life"), os.NewFile(4, "ready")
	for _, f := range []*os.File{life, ready} {
		unix.CloseOnExec(int(f.Fd()))
	}
	if err := prepare(); err != nil {
		log.Error("prepare the sandbox", "error", err)
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		var b [1]byte
		_, err := life.Read(b[:]) // nobody writes: returns at the other end's death
		cancel(fmt.Errorf("the outer process let go: %w", err))
	}()
	go reapOrphans(ctx)
	if err := f(ctx, &Inner{Args: os.Args[1:], ready: ready}); err != nil && !errors.Is(err, context.Canceled) {
		log.Error("sandbox ended", "error", err)
		return 1
	}
	return 0
}

// prepare gives the namespaces what every process expects of a machine.
func prepare() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts inside: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := unix.Sethostname([]byte("ambit")); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	return link.Up(nil, "lo")
}

// orphanAge is how long a dead child may wait for the code that started it before it counts as nobody's.
const orphanAge = 5 * time.Second

// reapOrphans is PID 1's duty: processes whose parent died become its children. Children that Go code started are
// waited for by that code at once; one that is still dead a whole period later is an orphan.
func reapOrphans(ctx context.Context) {
	tick := time.NewTicker(orphanAge)
	defer tick.Stop()
	before := map[int]bool{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := map[int]bool{}
		for _, pid := range zombies(os.Getpid()) {
			if before[pid] {
				_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil) // gone is gone
				continue
			}
			now[pid] = true
		}
		before = now
	}
}
