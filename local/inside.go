package local

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/lifecycle"
	"github.com/ambit-mesh/ambit/linux/sock"
	"github.com/ambit-mesh/ambit/local/client"
	"github.com/ambit-mesh/ambit/local/internal/api"
	"github.com/ambit-mesh/ambit/local/internal/controllers"
	"github.com/ambit-mesh/ambit/local/internal/dns"
	"github.com/ambit-mesh/ambit/local/internal/kubelet"
	"github.com/ambit-mesh/ambit/local/internal/network"
	"github.com/ambit-mesh/ambit/local/internal/runtime"
	"github.com/ambit-mesh/ambit/local/internal/sandbox"
	"github.com/ambit-mesh/ambit/local/internal/store"
	"github.com/ambit-mesh/ambit/local/internal/token"
)

// What every cluster has: the numbers of two services' addresses, and a port.
const (
	apiVIP  = 1
	dnsVIP  = 10
	apiPort = 6443
)

// maxCallers is how many connections the API server holds at once: every node and proxy of a machine watches with a few.
const maxCallers = 2048

// inside is the process that is a cluster: everything but the mesh's own parts, which run as its pods.
type inside struct {
	State string
	// Hidden are directories of the machine that no pod sees: other clusters of this user, homes.
	Hidden []string
	Bin    string
	Self   string
	Nodes  int
	Family network.Family

	log      *slog.Logger
	store    *store.Store
	keys     *token.Keys
	pki      *token.ServerPKI
	net      *network.Network
	kubelets []*kubelet.Kubelet
}

// NodeName of the n-th node, from 1. The first is the control plane.
func nodeName(n int) string { return fmt.Sprintf("node-%d", n) }

func (c *inside) run(ctx context.Context, in *sandbox.Inner, log *slog.Logger) error {
	c.log = log
	if err := c.open(); err != nil {
		return err
	}
	defer c.net.Close()
	g := lifecycle.NewGroup(ctx)
	g.Go("objects", c.store.Run)
	if err := c.basics(); err != nil {
		return err
	}
	g.Go("basics", func(ctx context.Context) error { return c.onServices(ctx, c.basics) }) // who deletes them gets them back
	if err := c.serveAPI(g); err != nil {
		return err
	}
	g.Go("controllers", controllers.New(controllers.Config{Store: c.store, RootCA: c.pki.RootPEM, Services: c.Family.Services(), Log: log}).Run)
	g.Go("services", c.followServices)
	if err := c.serveDNS(g); err != nil {
		return err
	}
	for i, k := range c.kubelets {
		g.Go("kubelet of "+nodeName(i+1), k.Run)
	}
	g.Go("relay", func(ctx context.Context) error { return sandbox.ServeRelay(ctx, c.State, c.dialFromOutside) })
	g.Go("exec", c.serveExec)
	g.Go("ready", func(ctx context.Context) error { return c.awaitNodes(ctx, in) })
	return g.Wait()
}

// open makes what the parts share.
func (c *inside) open() error {
	if err := c.sameFamily(); err != nil {
		return err
	}
	var err error
	names := make([]string, c.Nodes)
	for i := range names {
		names[i] = nodeName(i + 1)
	}
	if c.net, err = network.Build(network.Config{Nodes: names, Family: c.Family}); err != nil {
		return fmt.Errorf("network: %w", err)
	}
	if c.keys, err = token.Open(filepath.Join(c.State, "pki")); err != nil {
		return err
	}
	first := c.net.Nodes()[0]
	c.pki, err = token.NewServerPKI(
		[]string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
		[]net.IP{c.Family.Service(apiVIP)[0].AsSlice(), first.Addrs[0].AsSlice()})
	if err != nil {
		return err
	}
	if c.store, err = store.Open(store.Config{Objects: filepath.Join(c.State, "objects"), Status: filepath.Join(c.State, "status"), Families: c.families(), Log: c.log}); err != nil {
		return err
	}
	if err := c.forgetNodes(names); err != nil {
		return err
	}
	rt := runtime.New(runtime.Config{State: c.State, Hidden: c.Hidden, Bin: c.Bin, Self: c.Self, Applets: applets(), Log: c.log})
	for i, n := range c.net.Nodes() {
		k := kubelet.Config{
			Node: n, Runtime: rt, Cluster: kubelet.FromStore(c.store, c.keys), DNS: c.Family.Service(dnsVIP)[0], Logs: filepath.Join(c.State, "logs"), Log: c.log.With("node", n.Name),
		}
		if i == 0 {
			k.Labels = map[string]string{"node-role.kubernetes.io/control-plane": ""}
		}
		if i == 0 && c.Nodes > 1 { // a node alone runs everything
			k.Taints = []corev1.Taint{{Key: "node-role.kubernetes.io/control-plane", Effect: corev1.TaintEffectNoSchedule}}
		}
		c.kubelets = append(c.kubelets, kubelet.New(k))
	}
	return nil
}

// forgetNodes removes what a kept state tells of nodes that this cluster does not have; their pods go with them.
func (c *inside) forgetNodes(have []string) error {
	for _, n := range store.List[*corev1.Node](c.store, "") {
		if slices.Contains(have, n.Name) {
			continue
		}
		if err := c.store.Delete(store.KindFor[*corev1.Node](), "", n.Name, store.DeleteOptions{}); err != nil {
			return fmt.Errorf("forget node %s of an earlier cluster: %w", n.Name, err)
		}
	}
	return nil
}

// applets are offered to containers whose machine lacks the program.
func applets() map[string]string {
	return map[string]string{"curl": "ambit-sample", "nc": "ambit-sample"}
}

// serveAPI serves the objects to the machine through a socket, and to pods as Kubernetes does.
func (c *inside) serveAPI(g *lifecycle.Group) error {
	server := api.New(api.Config{Store: c.store, Logs: c.logs, Log: c.log})
	socket, err := sandbox.ListenUnix(filepath.Join(c.State, client.APISocket))
	if err != nil {
		return err
	}
	g.Go("api socket", func(ctx context.Context) error {
		return lifecycle.HTTP{Streams: true, Conns: maxCallers}.Serve(ctx, socket, c.machine(server.Trusted()))
	})

	first := c.net.Nodes()[0]
	l, err := first.Listen(context.Background(), "tcp", netip.AddrPortFrom(first.Addrs[0], apiPort).String())
	if err != nil {
		return fmt.Errorf("api server: %w", err)
	}
	verify := func(raw string) (string, error) {
		id, err := c.keys.Verify(raw, token.APIAudience)
		return id.Subject(), err
	}
	secure := tls.NewListener(l, &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{c.pki.Certificate}, NextProtos: []string{"http/1.1"}})
	g.Go("api server", func(ctx context.Context) error {
		return lifecycle.HTTP{Streams: true, Conns: maxCallers}.Serve(ctx, secure, server.Authenticated(verify))
	})
	return nil
}

// serveDNS answers on every address of the first node.
func (c *inside) serveDNS(g *lifecycle.Group) error {
	first := c.net.Nodes()[0]
	for _, a := range first.Addrs {
		at := netip.AddrPortFrom(a, 53)
		udp, err := sock.ListenUDP(first.NS, at, sock.Options{})
		if err != nil {
			return fmt.Errorf("dns: %w", err)
		}
		tcp, err := sock.Listen(first.NS, at, sock.Options{})
		if err != nil {
			return fmt.Errorf("dns: %w", err)
		}
		server := dns.New(dns.Config{UDP: udp, TCP: tcp, Log: c.log})
		g.Go("dns", server.Run)
		g.Go("names", func(ctx context.Context) error {
			return c.onServices(ctx, func() error {
				server.Set(c.allServices())
				return nil
			})
		})
	}
	return nil
}

// awaitNodes tells the outside once every node is known and the default namespace can take pods.
func (c *inside) awaitNodes(ctx context.Context, in *sandbox.Inner) error {
	wake, stop := c.store.Subscribe(store.KindFor[*corev1.Node](), store.KindFor[*corev1.ServiceAccount]())
	defer stop()
	for {
		_, err := store.Get[*corev1.ServiceAccount](c.store, "default", "default")
		if err == nil && len(store.List[*corev1.Node](c.store, "")) == c.Nodes {
			return in.Ready()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		}
	}
}

// dialFromOutside connects the machine to what it may reach inside: the ingress gateway, through the service of a node.
func (c *inside) dialFromOutside(ctx context.Context, to string) (net.Conn, error) {
	if to != ingressTarget {
		return nil, fmt.Errorf("relay to %q: only the ingress gateway is open to the machine", to)
	}
	s, err := store.Get[*corev1.Service](c.store, ingressNamespace, ingressService)
	if err != nil {
		return nil, err
	}
	last := c.net.Nodes()[len(c.net.Nodes())-1]
	return last.Dial(ctx, "tcp", net.JoinHostPort(s.Spec.ClusterIP, "80"))
}

func (c *inside) ingressURL() string {
	b, err := os.ReadFile(filepath.Join(c.State, ingressFile))
	if err != nil {
		return "" // nothing outside forwards to it
	}
	return string(b)
}
