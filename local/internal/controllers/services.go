package controllers

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/local/internal/store"
)

// Service addresses and node ports are given out from these. The low addresses are for services that name theirs.
var (
	firstVIP = netip.AddrFrom4([4]byte{10, 96, 1, 0})
	lastVIP  = netip.AddrFrom4([4]byte{10, 96, 255, 254})
)

const (
	firstNodePort = 30000
	lastNodePort  = 32767
)

// services gives each its address, its node ports and, to a LoadBalancer, the address of a node.
func (c *Controllers) services() error {
	all := store.List[*corev1.Service](c.Store, "")
	vips, ports, fronts := map[string]bool{}, map[int32]bool{}, map[front]bool{}
	for _, s := range all {
		vips[s.Spec.ClusterIP] = true
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
		if next.Spec.ClusterIP == "" {
			vip, err := freeVIP(vips)
			if err != nil {
				failed = append(failed, fmt.Errorf("service %s/%s: %w", s.Namespace, s.Name, err))
				continue
			}
			next.Spec.ClusterIP = vip
		}
		if len(next.Spec.ClusterIPs) == 0 {
			next.Spec.ClusterIPs = []string{next.Spec.ClusterIP}
		}
		if len(next.Spec.IPFamilies) == 0 {
			next.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol}
			next.Spec.IPFamilyPolicy = new(corev1.IPFamilyPolicySingleStack)
		}
		if t := next.Spec.Type; t == corev1.ServiceTypeNodePort || t == corev1.ServiceTypeLoadBalancer {
			for i := range next.Spec.Ports {
				if next.Spec.Ports[i].NodePort == 0 {
					next.Spec.Ports[i].NodePort = freePort(ports)
				}
			}
		}
		if next.Spec.Type == corev1.ServiceTypeLoadBalancer && len(next.Status.LoadBalancer.Ingress) == 0 {
			if ip := c.loadBalancer(next, fronts); ip != "" {
				next.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: ip}}
			}
		}
		failed = append(failed, update(c, s, func(o *corev1.Service) {
			o.Spec, o.Status = next.Spec, next.Status
		}))
	}
	return errors.Join(failed...)
}

func freeVIP(taken map[string]bool) (string, error) {
	for ip := firstVIP; ip != lastVIP; ip = ip.Next() {
		if s := ip.String(); !taken[s] {
			taken[s] = true
			return s, nil
		}
	}
	return "", errors.New("no service address is free")
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

// loadBalancer finds a node whose address has none of the service's ports in use by another.
func (c *Controllers) loadBalancer(s *corev1.Service, fronts map[front]bool) string {
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
		ip := internalIP(n)
		free := ip != ""
		for _, p := range s.Spec.Ports {
			free = free && !fronts[front{ip, p.Port}]
		}
		if free {
			occupy(fronts, ip, s)
			return ip
		}
	}
	return ""
}

func internalIP(n *corev1.Node) string {
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			return a.Address
		}
	}
	return ""
}
