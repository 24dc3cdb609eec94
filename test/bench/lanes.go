package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/test/lab"
)

// lane is one way from a client to a server.
type lane struct {
	name           string
	client, server lab.Pod
	to             string // what the client connects to
	proxies        []lab.Process
	nodes          []string // whose ztunnels the proxies are
	ours           bool
}

// world is the cluster with its lanes.
type world struct {
	*lab.Lab
	conf  config
	lanes []*lane
	began time.Time
}

// The lanes' names.
const (
	direct = "direct"
	plain  = "plain copy"
	ambit  = "ambit"
	istio  = "istio"
	// oneNode is ambit with both pods on one node: one ztunnel is both ends.
	oneNode = "ambit, one node"
)

func (w *world) say(format string, a ...any) {
	fmt.Fprintf(os.Stderr, "%5.1fs  %s\n", time.Since(w.began).Seconds(), fmt.Sprintf(format, a...))
}

func setUp(ctx context.Context, c config) (*world, error) {
	w := &world{conf: c, began: time.Now()}
	conf := lab.Config{Nodes: 3, Bin: c.bin, Log: w.say}
	if c.peer != "" {
		conf.Nodes, conf.Foreign, conf.On = 5, c.peer, []string{"node-4", "node-5"}
	}
	l, err := lab.Start(ctx, conf)
	if err != nil {
		return nil, err
	}
	w.Lab = l
	if err := w.make(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return w, nil
}

// make starts the pods of all lanes.
func (w *world) make(ctx context.Context) error {
	pair := func(name, namespace, from, to string) *lane {
		word := map[string]string{direct: "direct", plain: "copy", ambit: "ambit", oneNode: "near", istio: "istio"}[name]
		return &lane{
			name:   name,
			client: lab.Pod{Namespace: namespace, Name: word + "-client", Node: from}, server: lab.Pod{Namespace: namespace, Name: word + "-server", Node: to},
		}
	}
	w.lanes = []*lane{pair(direct, "plain", "node-2", "node-3"), pair(plain, "plain", "node-2", "node-3"), pair(ambit, "ambit", "node-2", "node-3")}
	w.lanes[2].ours, w.lanes[2].nodes = true, []string{"node-2", "node-3"}
	near := pair(oneNode, "ambit", "node-2", "node-2")
	near.ours, near.nodes = true, []string{"node-2"}
	w.lanes = append(w.lanes, near)
	if w.conf.peer != "" {
		l := pair(istio, "istio", "node-4", "node-5")
		l.nodes = []string{"node-4", "node-5"}
		w.lanes = append(w.lanes, l)
	}
	if err := w.Apply(ctx, lab.Namespace("plain", false)+lab.Namespace("ambit", true)+lab.Namespace("istio", true)); err != nil {
		return err
	}
	// The plain proxies are where ztunnel is: in the namespaces of both pods.
	w.lanes[1].server.Argv = [][]string{{lab.Load, "serve"}, {lab.Load, "relay", "-at", ":9101", "-to", "127.0.0.1:9000"}}
	for _, l := range w.lanes {
		if err := w.Start(ctx, l.server); err != nil {
			return err
		}
		addr, err := w.address(ctx, l.server)
		if err != nil {
			return err
		}
		l.to = addr + ":9000"
		if l.name == plain {
			l.client.Argv = [][]string{{lab.Load, "serve"}, {lab.Load, "relay", "-at", "127.0.0.1:9100", "-to", addr + ":9101"}}
			l.to = "127.0.0.1:9100"
		}
		if err := w.Start(ctx, l.client); err != nil {
			return err
		}
		if err := w.find(ctx, l); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) address(ctx context.Context, p lab.Pod) (string, error) {
	k, _ := kinds.Find("pods")
	o, err := w.Get(ctx, k, p.Namespace, p.Name)
	if err != nil {
		return "", err
	}
	return o.(*corev1.Pod).Status.PodIP, nil
}

// find looks up the processes of a lane's proxies.
func (w *world) find(ctx context.Context, l *lane) error {
	add := func(namespace, pod, container string) error {
		p, err := w.Process(ctx, namespace, pod, container)
		l.proxies = append(l.proxies, p)
		return err
	}
	switch {
	case l.name == plain:
		return errors.Join(add("plain", l.client.Name, "c1"), add("plain", l.server.Name, "c1"))
	case l.nodes == nil:
		return nil
	}
	for _, node := range l.nodes {
		pod, err := w.Ztunnel(ctx, node)
		if err != nil {
			return err
		}
		if err := add(mesh.SystemNamespace, pod, "istio-proxy"); err != nil {
			return err
		}
	}
	return nil
}

// cpu is what the lane's proxies have used.
func (l *lane) cpu() (sum time.Duration, err error) {
	for _, p := range l.proxies {
		d, err := p.CPU()
		if err != nil {
			return 0, err
		}
		sum += d
	}
	return sum, nil
}

// resident is the memory of the lane's proxies, together.
func (l *lane) resident() (sum int64, err error) {
	for _, p := range l.proxies {
		n, err := p.Resident()
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// mallocs is how often our proxies have allocated.
func (w *world) mallocs(ctx context.Context, l *lane) (sum float64, err error) {
	for _, node := range l.nodes {
		pod, err := w.Ztunnel(ctx, node)
		if err != nil {
			return 0, err
		}
		page, err := w.Pod(ctx, http.MethodGet, mesh.SystemNamespace, pod, 15020, "/metrics")
		if err != nil {
			return 0, err
		}
		for line := range bytes.Lines(page) {
			if value, ok := bytes.CutPrefix(line, []byte("go_memstats_mallocs_total ")); ok {
				n, err := strconv.ParseFloat(string(bytes.TrimSpace(value)), 64)
				if err != nil {
					return 0, err
				}
				sum += n
			}
		}
	}
	return sum, nil
}
