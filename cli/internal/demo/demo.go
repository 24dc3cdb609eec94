// Package demo walks through an ambient mesh on a fresh local cluster and shows each step, with proof.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/ambit-mesh/ambit/local/client"
)

// Config of a walk.
type Config struct {
	Out io.Writer
	// Color says whether Out understands colours.
	Color bool
	API   *client.Client
	// Exec runs a program in the first pod of a Deployment and gives its output and exit status.
	Exec func(ctx context.Context, namespace, deployment string, argv ...string) (string, int, error)
	// Ambit runs a command line of ambit on the walk's cluster, with in as its input, and gives its output and exit status.
	Ambit func(ctx context.Context, in string, args ...string) (string, int)
	// Ingress is the address of the ingress gateway on this machine.
	Ingress string
}

// Walk is one run of the demo. Its steps build on each other.
type Walk struct {
	Config
	ui      *ui
	results []Result
	memory  []client.Process
	clear   *wire // before enrolment
	web     *http.Client
}

// Result is what became of one step.
type Result struct {
	Name string
	Err  error
	Took time.Duration
}

// New makes a walk.
func New(c Config) *Walk {
	return &Walk{Config: c, ui: newUI(c.Out, c.Color), web: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}}
}

// ErrInterrupted is what a step ends with when its context does.
var ErrInterrupted = errors.New("interrupted")

// Step runs one step, shows how it went, and remembers it. After a failed step it runs nothing more.
func (w *Walk) Step(ctx context.Context, name string, f func(context.Context) error) error {
	if n := len(w.results); n > 0 && w.results[n-1].Err != nil {
		return errors.New("an earlier step failed")
	}
	w.ui.begin(name)
	start := time.Now()
	err := f(ctx)
	if ctx.Err() != nil {
		err = ErrInterrupted // whatever else went wrong went wrong because of that
	}
	took := time.Since(start)
	w.results = append(w.results, Result{name, err, took})
	w.ui.end(name, err, took)
	return err
}

// Run walks through every step after the cluster is up. The first that does not hold ends it.
func (w *Walk) Run(ctx context.Context) error {
	steps := []struct {
		name string
		run  func(context.Context) error
	}{
		{"Install the mesh into istio-system", w.install},
		{"Deploy bookinfo, sleep, notsleep, and open the ingress gateway", w.deploy},
		{"Ask for the product page before enrolment", w.before},
		{"Label the namespace: running pods join, none restarts", w.enroll},
		{"Read the wire between the nodes, before and after", w.wire},
		{"Let only sleep reach the product page, and ask why others may not", w.authorize},
		{"Demand mutual TLS: a pod outside the mesh is refused", w.strict},
		{"Find a mistake before it is applied", w.mistake},
	}
	for _, s := range steps {
		if err := w.Step(ctx, s.name, s.run); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	var err error
	if w.memory, err = w.API.Processes(ctx); err != nil {
		return fmt.Errorf("memory of the processes: %w", err)
	}
	return nil
}
