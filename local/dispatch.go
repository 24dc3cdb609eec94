package local

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/ambit-mesh/ambit/local/internal/network/ptp"
	"github.com/ambit-mesh/ambit/local/internal/runtime/view"
	"github.com/ambit-mesh/ambit/local/internal/sandbox"
)

// Dispatch runs what the binary was started for besides its command line: by the name it is called by it is the
// inside of a cluster, the cluster's own CNI plugin, a container's first process or a probe of the machine. A main
// function calls it first of all; handled is false when there is an ordinary command line to read.
func Dispatch() (status int, handled bool) {
	switch {
	case sandbox.Probing():
		return sandbox.ProbeMain(), true
	case view.Called(os.Args[0]):
		return view.Main(), true
	case ptp.Called(os.Args[0]):
		if err := ptp.Main(); err != nil {
			return 1, true // it has said so on standard output, as the CNI specification asks
		}
		return 0, true
	case sandbox.Inside():
		return runInside(), true
	}
	return 0, false
}

// runInside is the inner process. What it says goes to a file of the state directory: there is nobody to read its
// standard error.
func runInside() int {
	var c inside
	if len(os.Args) != 2 {
		return 2
	}
	if err := json.Unmarshal([]byte(os.Args[1]), &c); err != nil {
		return 2
	}
	f, err := os.OpenFile(filepath.Join(c.State, logFile), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return 2
	}
	defer f.Close()
	log := slog.New(slog.NewTextHandler(f, nil))
	return sandbox.Main(log, func(ctx context.Context, in *sandbox.Inner) error { return c.run(ctx, in, log) })
}
