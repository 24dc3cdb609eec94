package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/ambit-mesh/ambit/mesh"
)

// amiss is what the ztunnels of all lanes said last of what went wrong.
func (w *world) amiss(ctx context.Context) error {
	var all []error
	for _, l := range w.lanes {
		for _, node := range l.nodes {
			pod, err := w.Ztunnel(ctx, node)
			if err != nil {
				return err
			}
			for _, level := range []string{"\twarn\t", "\terror\t"} {
				lines, err := w.Lines(ctx, mesh.SystemNamespace, pod, level)
				if err != nil {
					return err
				}
				for _, line := range lines[max(0, len(lines)-4):] {
					all = append(all, fmt.Errorf("%s: %s", node, line))
				}
			}
		}
	}
	return errors.Join(all...)
}
