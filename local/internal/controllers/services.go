package controllers

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/local/internal/store"
)

// lowVIPs are the addresses that are not given out: for services that name theirs. maxVIPs is how many are.
const lowVIPs, maxVIPs = 0x100, 0xfe00

// Node ports are given out from these.
const (
	firstNodePort = 30000
	lastNodePort  = 32767
)

// services gives each its address, its node ports and, to a LoadBalancer, the address of a node.
func (c *Controllers) services() error {
	all := store.List[*corev1.Service](c.Store, "")
	vips, ports, fronts := map[string]bool{}, map[int32]bool{}, map[front]bool{}
	for _, s := range all {
		for _, ip := range s.Spec.ClusterIPs {
			vips[ip] = true
		}
		for _, i := range s.Status.LoadBalancer.Ingress {
			occupy(fronts, i.IP, s)
		}
		for _, p := range s.Spec.Ports {
			ports[p.NodePort] = true
		}
	}
	var failed []error
	for _, s := range all {
		if s.DeletionTimestamp != nil || s.Spec.Type == corev1.ServiceTypeExternalName {
			continue
		}
		next := s.DeepCopy()
		if err := c.clusterIPs(&next.Spec, vips); err != nil {
			failed = append(failed, fmt.Errorf("service %s/%s: %w", s.Namespace, s.Name, err))
			continue
		}
		if t := next.Spec.Type; t == corev1.ServiceTypeNodePort || t == corev1.ServiceTypeLoadBalancer {
			for i := range next.Spec.Ports {
				if next.Spec.Ports[i].NodePort == 0 {
					next.Spec.Ports[i].NodePort = freePort(ports)
				}
			}
		}
		if next.Spec.Type == corev1.ServiceTypeLoadBalancer && len(next.Status.LoadBalancer.Ingress) == 0 {
			for _, ip := range c.loadBalancer(next, fronts) {
				next.Status.LoadBalancer.Ingress = append(next.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: ip})
			}
		}
		failed = append(failed, update(c, s, func(o *corev1.Service) {
			o.Spec, o.Status = next.Spec, next.Status
		}))
	}
	return errors.Join(failed...)
}

// clusterIPs gives a service an address of each of its families.
func (c *Controllers) clusterIPs(spec *corev1.ServiceSpec, taken map[string]bool) error {
	if spec.ClusterIP == corev1.ClusterIPNone {
		return nil
	}
	for _, f := range spec.IPFamilies[len(spec.ClusterIPs):] {
		ip, err := c.freeVIP(f, taken)
		if err != nil {
			return err
		}
		spec.ClusterIPs = append(spec.ClusterIPs, ip)
	}
	if len(spec.ClusterIPs) > 0 {
		spec.ClusterIP = spec.ClusterIPs[0]
	}
	return nil
}

func (c *Controllers) freeVIP(f corev1.IPFamily, taken map[string]bool) (string, error) {
	for _, p := range c.Services {
		if familyOf(p.Addr()) != f {
			continue
		}
		for n := range maxVIPs {
			ip := nth(p, n+lowVIPs).String()
			if !taken[ip] {
				taken[ip] = true
				return ip, nil
			}
		}
	}
	return "", fmt.Errorf("no service address of %s is free", f)
}

// nth is an address of a prefix by its last two bytes.
func nth(p netip.Prefix, n int) netip.Addr {
	b := p.Addr().AsSlice()
	b[len(b)-2], b[len(b)-1] = byte(n>>8), byte(n)
	a, _ := netip.AddrFromSlice(b)
	return a
}

func familyOf(a netip.Addr) corev1.IPFamily {
	if a.Is4() {
		return corev1.IPv4Protocol
	}
	return corev1.IPv6Protocol
}

// freePort is 0 when none is free: the service then has no node port.
func freePort(taken map[int32]bool) int32 {
	for p := int32(firstNodePort); p <= lastNodePort; p++ {
		if !taken[p] {
			taken[p] = true
			return p
		}
	}
	return 0
}

// front is a port of a node that a LoadBalancer uses.
type front struct {
	ip   string
	port int32
}

func occupy(fronts map[front]bool, ip string, s *corev1.Service) {
	for _, p := range s.Spec.Ports {
		fronts[front{ip, p.Port}] = true
	}
}

// loadBalancer finds a node whose addresses, of the service's families, have none of its ports in use by another.
func (c *Controllers) loadBalancer(s *corev1.Service, fronts map[front]bool) []string {
	nodes := store.List[*corev1.Node](c.Store, "")
	slices.SortFunc(nodes, func(a, b *corev1.Node) int { // workers first: the control plane's own ports are its own
		if x, y := isControlPlane(a), isControlPlane(b); x != y {
			if x {
				return 1
			}
			return -1
		}
		return compareNames(a, b)
	})
	for _, n := range nodes {
		ips := internalIPs(n, s.Spec.IPFamilies)
		free := len(ips) > 0
		for _, ip := range ips {
			for _, p := range s.Spec.Ports {
				free = free && !fronts[front{ip, p.Port}]
			}
		}
		if !free {
			continue
		}
		for _, ip := range ips {
			occupy(fronts, ip, s)
		}
		return ips
	}
	return nil
}

// internalIPs are a node's addresses of some families, in their order.
func internalIPs(n *corev1.Node, families []corev1.IPFamily) []string {
	var all []string
	for _, f := range families {
		for _, a := range n.Status.Addresses {
			if ip, err := netip.ParseAddr(a.Address); err == nil && a.Type == corev1.NodeInternalIP && familyOf(ip) == f {
				all = append(all, a.Address)
			}
		}
	}
	return all
}
