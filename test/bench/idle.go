package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/test/lab"
	"github.com/ambit-mesh/ambit/test/lab/figures"
)

// quietly is how long memory is given to settle: a program that gives pages back does it within some seconds.
const quietly = 12 * time.Second

// idle is the memory of proxies with nothing to do, and with many connections that carry nothing.
func (w *world) idle(ctx context.Context, r *result) error {
	if err := pause(ctx, quietly); err != nil {
		return err
	}
	if err := w.agents(ctx, r); err != nil {
		return err
	}
	for _, count := range []int{0, 1000, 10_000} {
		for _, l := range w.lanes {
			if l.name != ambit && l.name != istio {
				continue
			}
			if err := w.holding(ctx, r, l, count); err != nil {
				return fmt.Errorf("%d connections of %s: %w", count, l.name, err)
			}
		}
	}
	return nil
}

// holding measures while a client holds connections.
func (w *world) holding(ctx context.Context, r *result, l *lane, count int) error {
	if count > 0 {
		client, err := w.Begin(ctx, l.client, lab.Load, "idle", "-to", l.to, "-count", strconv.Itoa(count))
		if err != nil {
			return err
		}
		var open figures.Event
		if err := client.Next(&open); err != nil {
			client.Stop()
			return err
		}
		defer client.Stop()
		if err := pause(ctx, quietly); err != nil {
			return err
		}
	}
	n, err := l.resident()
	r.memory[memoryKey{l.name, count}] = n
	return err
}

// agents is the memory of the node agents in the same mesh.
func (w *world) agents(ctx context.Context, r *result) error {
	k, _ := kinds.Find("pods")
	pods, err := w.List(ctx, k, mesh.SystemNamespace, "k8s-app=istio-cni-node")
	if err != nil {
		return err
	}
	for _, o := range pods {
		p, err := w.Process(ctx, mesh.SystemNamespace, o.(*corev1.Pod).Name, "install-cni")
		if err != nil {
			return err
		}
		n, err := p.Resident()
		if err != nil {
			return err
		}
		r.agents = max(r.agents, n)
	}
	return nil
}

// after is the memory some time after all the load.
func (w *world) after(ctx context.Context, r *result) error {
	if err := pause(ctx, 30*time.Second); err != nil {
		return err
	}
	for _, l := range w.lanes {
		if l.name != ambit && l.name != istio {
			continue
		}
		n, err := l.resident()
		if err != nil {
			return err
		}
		r.memory[memoryKey{l.name, afterLoad}] = n
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
