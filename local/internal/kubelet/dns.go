package kubelet

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// resolvConf is a pod's /etc/resolv.conf by its DNS policy. The local cluster's server asks the machine's for other
// names, so a pod of policy Default has it too.
func resolvConf(pod *corev1.Pod, server, domain string) string {
	var servers, search, options []string
	if pod.Spec.DNSPolicy != corev1.DNSNone {
		servers = []string{server}
		search = []string{pod.Namespace + ".svc." + domain, "svc." + domain, domain}
		options = []string{"ndots:5"}
		if pod.Spec.DNSPolicy == corev1.DNSDefault {
			search, options = nil, nil
		}
	}
	if c := pod.Spec.DNSConfig; c != nil {
		servers = append(servers, c.Nameservers...)
		search = append(search, c.Searches...)
		for _, o := range c.Options {
			if o.Value != nil {
				options = append(options, o.Name+":"+*o.Value)
			} else {
				options = append(options, o.Name)
			}
		}
	}
	var b strings.Builder
	if len(search) > 0 {
		b.WriteString("search " + strings.Join(search, " ") + "\n")
	}
	for _, s := range servers {
		b.WriteString("nameserver " + s + "\n")
	}
	if len(options) > 0 {
		b.WriteString("options " + strings.Join(options, " ") + "\n")
	}
	return b.String()
}
