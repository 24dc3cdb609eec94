// Command ambit installs, shows and explains the mesh.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/ambit-mesh/ambit/cli"
	"github.com/ambit-mesh/ambit/local"
)

// version is set when the binary is built.
var version = "dev"

func main() {
	if status, handled := local.Dispatch(); handled {
		os.Exit(status)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(cli.Run(ctx, cli.Env{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Version: version}, os.Args[1:]))
}
