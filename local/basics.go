package local

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/linux/nft"
	"github.com/ambit-mesh/ambit/local/internal/network"
	"github.com/ambit-mesh/ambit/local/internal/proxy"
	"github.com/ambit-mesh/ambit/local/internal/store"
)

// basics makes the objects that every Kubernetes cluster has. Those that are there, of a kept state, are left alone.
func (c *inside) basics() error {
	nodes := c.net.Nodes()[0].Addrs
	tcp, udp := corev1.ProtocolTCP, corev1.ProtocolUDP
	type port struct {
		name     string
		front    int32
		back     int32
		protocol corev1.Protocol
	}
	var all []kinds.Object
	for _, ns := range []string{"default", "kube-system", "kube-public"} {
		all = append(all, &corev1.Namespace{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"},
			ObjectMeta: metav1.ObjectMeta{Name: ns, Labels: map[string]string{corev1.LabelMetadataName: ns}},
		})
	}
	service := func(ns, name string, vips []netip.Addr, ports ...port) {
		s := &corev1.Service{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
			Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: vips[0].String()},
		}
		for _, p := range ports {
			s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: p.name, Port: p.front, Protocol: p.protocol, TargetPort: intstr.FromInt32(p.back)})
		}
		all = append(all, s)
		for i, vip := range vips {
			s.Spec.ClusterIPs = append(s.Spec.ClusterIPs, vip.String())
			e := &discoveryv1.EndpointSlice{
				TypeMeta:    metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
				ObjectMeta:  metav1.ObjectMeta{Namespace: ns, Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: name}},
				AddressType: discoveryv1.AddressType(family(vip)),
				Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{nodes[i].String()}, Conditions: discoveryv1.EndpointConditions{Ready: new(true)}, NodeName: new(nodeName(1))}},
			}
			if i > 0 {
				e.Name += "-ipv6"
			}
			for _, p := range ports {
				e.Ports = append(e.Ports, discoveryv1.EndpointPort{Name: &p.name, Port: &p.back, Protocol: &p.protocol})
			}
			all = append(all, e)
		}
	}
	service("default", "kubernetes", c.Family.Service(apiVIP)[:1], port{"https", 443, apiPort, tcp})
	service("kube-system", "kube-dns", c.Family.Service(dnsVIP), port{"dns", 53, 53, udp}, port{"dns-tcp", 53, 53, tcp})
	for _, o := range all {
		if _, err := c.store.Create(o); err != nil && !errors.Is(err, store.ErrExists) {
			return fmt.Errorf("make the cluster's own objects: %w", err)
		}
	}
	return nil
}

// sameFamily refuses a kept state of a cluster with other addresses: its services could not be reached.
func (c *inside) sameFamily() error {
	path := filepath.Join(c.State, "ip-family")
	had, err := os.ReadFile(path)
	if _, kept := os.Stat(filepath.Join(c.State, "objects")); errors.Is(err, os.ErrNotExist) && kept == nil {
		had, err = []byte(network.IPv4), nil // of a version that had no other
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		return os.WriteFile(path, []byte(c.Family), 0o600)
	case err != nil:
		return err
	case string(had) != string(c.Family):
		return fmt.Errorf("the state in %s is of a cluster with --ip-family %s, not %s: remove that directory, or use another --state", c.State, had, c.Family)
	}
	return nil
}

// families are the cluster's, its own first, as objects name them.
func (c *inside) families() []corev1.IPFamily {
	var all []corev1.IPFamily
	for _, p := range c.Family.Services() {
		all = append(all, family(p.Addr()))
	}
	return all
}

func family(a netip.Addr) corev1.IPFamily {
	if a.Is4() {
		return corev1.IPv4Protocol
	}
	return corev1.IPv6Protocol
}

func (c *inside) allServices() ([]*corev1.Service, []*discoveryv1.EndpointSlice) {
	return store.List[*corev1.Service](c.store, ""), store.List[*discoveryv1.EndpointSlice](c.store, "")
}

// onServices calls f now and whenever services or their endpoints have changed. A failure is tried again.
func (c *inside) onServices(ctx context.Context, f func() error) error {
	wake, stop := c.store.Subscribe(store.KindFor[*corev1.Service](), store.KindFor[*discoveryv1.EndpointSlice]())
	defer stop()
	for {
		if err := f(); err != nil {
			c.log.Warn("services not brought up to date, will retry", "error", err)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(time.Second):
				continue
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		}
	}
}

// followServices keeps the rules of every node, of all nodes at once: none is the last to know.
func (c *inside) followServices(ctx context.Context) error {
	nodes := c.net.Nodes()
	last, failed := make([]string, len(nodes)), make([]error, len(nodes))
	return c.onServices(ctx, func() error {
		services, eps := c.allServices()
		var all sync.WaitGroup
		for i, n := range nodes {
			all.Go(func() {
				table := proxy.Rules(n.Name, services, eps, c.Family.Services())
				text := table.String()
				if failed[i] = nil; text == last[i] {
					return
				}
				if err := nft.Apply(n.NS, table); err != nil {
					failed[i] = fmt.Errorf("rules of %s: %w", n.Name, err)
					return
				}
				last[i] = text
			})
		}
		all.Wait()
		return errors.Join(failed...)
	})
}
