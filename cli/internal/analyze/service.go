package analyze

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

func services(a *analysis) {
	each(a, func(l kinds.Located, s *corev1.Service) {
		if !system(s.Namespace) {
			a.portNames(l, s)
		}
	})
	for _, p := range a.pods {
		if p.running == nil && !system(p.namespace) {
			a.shared(p)
		}
	}
}

// portNames wants each port of a service of applications to say its protocol.
func (a *analysis) portNames(l kinds.Located, s *corev1.Service) {
	if s.Namespace == "default" && s.Name == "kubernetes" {
		return
	}
	known := []string{"http", "http2", "https", "grpc", "grpcweb", "grpc-web", "tcp", "tls", "mongo", "mysql", "redis", "udp", "hbone"}
	for i, p := range s.Spec.Ports {
		word, _, _ := strings.Cut(p.Name, "-")
		if p.AppProtocol != nil || p.Protocol == corev1.ProtocolUDP || slices.Contains(known, word) {
			continue
		}
		a.add(l, finding{
			Info, "IST0118", fmt.Sprintf("spec.ports[%d].name", i),
			fmt.Sprintf("Port name %s (port: %d, targetPort: %s) doesn't follow the naming convention of Istio port.", p.Name, p.Port, p.TargetPort.String()),
			"name it PROTOCOL or PROTOCOL-SUFFIX, such as http-" + strconv.Itoa(int(p.Port)) + ", or set appProtocol",
		})
	}
}

// shared wants the services of one workload to agree about its ports.
func (a *analysis) shared(p pod) {
	protocols := map[int32]map[string][]string{} // port → protocol → services
	targets := map[string]map[int32]string{}     // target → port → service
	for _, s := range a.behind(p) {
		for _, port := range s.Spec.Ports {
			protocol, target := string(port.Protocol), port.TargetPort.String()
			if protocol == "" {
				protocol = string(corev1.ProtocolTCP)
			}
			if target == "0" || target == "" {
				target = strconv.Itoa(int(port.Port))
			}
			if protocols[port.Port] == nil {
				protocols[port.Port] = map[string][]string{}
			}
			if targets[target] == nil {
				targets[target] = map[int32]string{}
			}
			protocols[port.Port][protocol] = append(protocols[port.Port][protocol], s.Name+"."+s.Namespace)
			targets[target][port.Port] = s.Name + "." + s.Namespace
		}
	}
	name := p.Object.GetName()
	for port, by := range protocols {
		if len(by) < 2 {
			continue
		}
		all := slices.Sorted(func(yield func(string) bool) {
			for _, some := range by {
				for _, s := range some {
					if !yield(s) {
						return
					}
				}
			}
		})
		a.add(p.Located, finding{
			Warning, "IST0116", "metadata.name", fmt.Sprintf("This deployment %s is associated with multiple services using port %d but different protocols: %v", name, port, all),
			"give one of them another port, or both one protocol",
		})
	}
	for target, by := range targets {
		if len(by) < 2 {
			continue
		}
		a.add(p.Located, finding{
			Warning, "IST0137", "metadata.name", fmt.Sprintf("This deployment %s is associated with multiple services %v using targetPort %q but different ports: %v.",
				name, slices.Compact(slices.Sorted(maps.Values(by))), target, slices.Sorted(maps.Keys(by))),
			"make them the same port, or lead them to different ports of the workload",
		})
	}
}
