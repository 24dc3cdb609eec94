package table

import (
	"cmp"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

func podReady(p *corev1.Pod) string {
	n := 0
	for _, c := range p.Status.ContainerStatuses {
		if c.Ready {
			n++
		}
	}
	return fmt.Sprintf("%d/%d", n, len(p.Spec.Containers))
}

func podRestarts(p *corev1.Pod) string {
	n := int32(0)
	for _, c := range p.Status.ContainerStatuses {
		n += c.RestartCount
	}
	return fmt.Sprint(n)
}

// PodStatus is the one word that kubectl makes of a pod's phase, its reason and its containers' states.
func PodStatus(p *corev1.Pod) string {
	status := cmp.Or(p.Status.Reason, string(p.Status.Phase), "Pending")
	if p.DeletionTimestamp != nil {
		return "Terminating"
	}
	for i, c := range p.Status.InitContainerStatuses {
		if word := stateReason(c.State); word != "" && word != "Completed" {
			return "Init:" + word
		}
		if c.State.Terminated == nil {
			return fmt.Sprintf("Init:%d/%d", i, len(p.Spec.InitContainers))
		}
	}
	for _, c := range p.Status.ContainerStatuses {
		if word := stateReason(c.State); word != "" {
			status = word
		}
	}
	return status
}

// stateReason tells why a container is not simply running.
func stateReason(s corev1.ContainerState) string {
	switch {
	case s.Waiting != nil:
		return s.Waiting.Reason
	case s.Terminated != nil:
		if s.Terminated.Reason != "" {
			return s.Terminated.Reason
		}
		if s.Terminated.Signal != 0 {
			return fmt.Sprintf("Signal:%d", s.Terminated.Signal)
		}
		return fmt.Sprintf("ExitCode:%d", s.Terminated.ExitCode)
	}
	return ""
}

func externalIP(s *corev1.Service) string {
	var ips []string
	for _, i := range s.Status.LoadBalancer.Ingress {
		ips = append(ips, cmp.Or(i.IP, i.Hostname))
	}
	ips = append(ips, s.Spec.ExternalIPs...)
	switch {
	case s.Spec.Type == corev1.ServiceTypeExternalName:
		return s.Spec.ExternalName
	case len(ips) == 0 && s.Spec.Type == corev1.ServiceTypeLoadBalancer:
		return "<pending>"
	}
	return list(ips)
}

func servicePorts(s *corev1.Service) string {
	var ports []string
	for _, p := range s.Spec.Ports {
		text := fmt.Sprint(p.Port)
		if p.NodePort != 0 {
			text += fmt.Sprintf(":%d", p.NodePort)
		}
		ports = append(ports, text+"/"+cmp.Or(string(p.Protocol), "TCP"))
	}
	return list(ports)
}

func containers(s corev1.PodSpec, images bool) string {
	var all []string
	for _, c := range s.Containers {
		if images {
			all = append(all, c.Image)
		} else {
			all = append(all, c.Name)
		}
	}
	return strings.Join(all, ",")
}

func slicePorts(e *discoveryv1.EndpointSlice) string {
	var ports []string
	for _, p := range e.Ports {
		if p.Port != nil {
			ports = append(ports, fmt.Sprint(*p.Port))
		}
	}
	return list(ports)
}

func sliceAddresses(e *discoveryv1.EndpointSlice) string {
	var all []string
	for _, ep := range e.Endpoints {
		all = append(all, ep.Addresses...)
	}
	return list(all)
}
