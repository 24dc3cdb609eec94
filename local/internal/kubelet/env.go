package kubelet

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// environment is a container's, as name=value in Kubernetes' order: services, envFrom, env; the last one of a name wins.
func environment(c Cluster, pod *corev1.Pod, ctr corev1.Container, base []string) ([]string, error) {
	e := &vars{values: map[string]string{}}
	for _, b := range base {
		name, value, _ := strings.Cut(b, "=")
		e.set(name, value)
	}
	e.services(c, pod)
	for _, from := range ctr.EnvFrom {
		if err := e.from(c, pod, from); err != nil {
			return nil, err
		}
	}
	for _, v := range ctr.Env {
		if v.ValueFrom == nil {
			e.set(v.Name, expand(v.Value, e.values))
			continue
		}
		value, ok, err := lookup(c, pod, ctr, v.ValueFrom)
		if err != nil {
			return nil, fmt.Errorf("variable %s: %w", v.Name, err)
		}
		if ok {
			e.set(v.Name, value)
		}
	}
	return e.list(), nil
}

// vars keeps the order in which variables came.
type vars struct {
	names  []string
	values map[string]string
}

func (e *vars) set(name, value string) {
	if _, known := e.values[name]; !known {
		e.names = append(e.names, name)
	}
	e.values[name] = value
}

func (e *vars) list() []string {
	out := make([]string, len(e.names))
	for i, n := range e.names {
		out[i] = n + "=" + e.values[n]
	}
	return out
}

// services sets the variables by which programs found services before there was DNS.
func (e *vars) services(c Cluster, pod *corev1.Pod) {
	var all []*corev1.Service
	for _, s := range c.Services(metaDefault) {
		if s.Name == "kubernetes" {
			all = append(all, s)
		}
	}
	if pod.Spec.EnableServiceLinks == nil || *pod.Spec.EnableServiceLinks {
		for _, s := range c.Services(pod.Namespace) {
			if pod.Namespace != metaDefault || s.Name != "kubernetes" {
				all = append(all, s)
			}
		}
	}
	for _, s := range all {
		if addr, err := netip.ParseAddr(s.Spec.ClusterIP); err == nil && len(s.Spec.Ports) > 0 {
			e.service(s, addr)
		}
	}
}

const metaDefault = "default"

func (e *vars) service(s *corev1.Service, ip netip.Addr) {
	name := strings.ToUpper(strings.ReplaceAll(s.Name, "-", "_"))
	first := s.Spec.Ports[0]
	e.set(name+"_SERVICE_HOST", ip.String())
	e.set(name+"_SERVICE_PORT", strconv.Itoa(int(first.Port)))
	for _, p := range s.Spec.Ports {
		if p.Name != "" {
			e.set(name+"_SERVICE_PORT_"+strings.ToUpper(strings.ReplaceAll(p.Name, "-", "_")), strconv.Itoa(int(p.Port)))
		}
	}
	for i, p := range s.Spec.Ports {
		proto := p.Protocol
		if proto == "" {
			proto = corev1.ProtocolTCP
		}
		url := strings.ToLower(string(proto)) + "://" + net.JoinHostPort(ip.String(), strconv.Itoa(int(p.Port)))
		if i == 0 {
			e.set(name+"_PORT", url)
		}
		prefix := fmt.Sprintf("%s_PORT_%d_%s", name, p.Port, proto)
		e.set(prefix, url)
		e.set(prefix+"_PROTO", strings.ToLower(string(proto)))
		e.set(prefix+"_PORT", strconv.Itoa(int(p.Port)))
		e.set(prefix+"_ADDR", ip.String())
	}
}

// from takes a whole config map or secret.
func (e *vars) from(c Cluster, pod *corev1.Pod, f corev1.EnvFromSource) error {
	values := map[string]string{}
	switch {
	case f.ConfigMapRef != nil:
		m, ok := c.ConfigMap(pod.Namespace, f.ConfigMapRef.Name)
		if !ok && (f.ConfigMapRef.Optional == nil || !*f.ConfigMapRef.Optional) {
			return fmt.Errorf("configmap %q not found", f.ConfigMapRef.Name)
		}
		if ok {
			values = m.Data
		}
	case f.SecretRef != nil:
		s, ok := c.Secret(pod.Namespace, f.SecretRef.Name)
		if !ok && (f.SecretRef.Optional == nil || !*f.SecretRef.Optional) {
			return fmt.Errorf("secret %q not found", f.SecretRef.Name)
		}
		if ok {
			for key, v := range s.Data {
				values[key] = string(v)
			}
		}
	}
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		e.set(f.Prefix+name, values[name])
	}
	return nil
}

// lookup is the value that a source names; ok is false for an optional one that is not there.
func lookup(c Cluster, pod *corev1.Pod, ctr corev1.Container, from *corev1.EnvVarSource) (value string, ok bool, err error) {
	switch {
	case from.FieldRef != nil:
		v, err := field(pod, from.FieldRef.FieldPath)
		return v, err == nil, err
	case from.ConfigMapKeyRef != nil:
		r := from.ConfigMapKeyRef
		if m, found := c.ConfigMap(pod.Namespace, r.Name); found {
			if v, has := m.Data[r.Key]; has {
				return v, true, nil
			}
		}
		if r.Optional != nil && *r.Optional {
			return "", false, nil
		}
		return "", false, fmt.Errorf("key %q of configmap %q not found", r.Key, r.Name)
	case from.SecretKeyRef != nil:
		r := from.SecretKeyRef
		if s, found := c.Secret(pod.Namespace, r.Name); found {
			if v, has := s.Data[r.Key]; has {
				return string(v), true, nil
			}
		}
		if r.Optional != nil && *r.Optional {
			return "", false, nil
		}
		return "", false, fmt.Errorf("key %q of secret %q not found", r.Key, r.Name)
	case from.ResourceFieldRef != nil:
		return amount(ctr, from.ResourceFieldRef.Resource), true, nil
	}
	return "", false, fmt.Errorf("its source is of no known kind")
}

// amount is a container's own limit or request; a local cluster enforces none.
func amount(ctr corev1.Container, name string) string {
	kind, what, _ := strings.Cut(name, ".")
	list := ctr.Resources.Limits
	if kind == "requests" {
		list = ctr.Resources.Requests
	}
	if q, ok := list[corev1.ResourceName(what)]; ok {
		return strconv.FormatInt(q.Value(), 10)
	}
	return "0"
}

// field is a pod's field for the downward API.
func field(pod *corev1.Pod, path string) (string, error) {
	if name, ok := subscript(path, "metadata.labels"); ok {
		return pod.Labels[name], nil
	}
	if name, ok := subscript(path, "metadata.annotations"); ok {
		return pod.Annotations[name], nil
	}
	switch path {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "metadata.labels":
		return lines(pod.Labels), nil
	case "metadata.annotations":
		return lines(pod.Annotations), nil
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return serviceAccount(pod), nil
	case "status.podIP":
		return pod.Status.PodIP, nil
	case "status.podIPs":
		ips := make([]string, len(pod.Status.PodIPs))
		for i, ip := range pod.Status.PodIPs {
			ips[i] = ip.IP
		}
		return strings.Join(ips, ","), nil
	case "status.hostIP":
		return pod.Status.HostIP, nil
	case "status.hostIPs":
		ips := make([]string, len(pod.Status.HostIPs))
		for i, ip := range pod.Status.HostIPs {
			ips[i] = ip.IP
		}
		return strings.Join(ips, ","), nil
	}
	return "", fmt.Errorf("field %q is not one that a container can have", path)
}

func serviceAccount(pod *corev1.Pod) string {
	if pod.Spec.ServiceAccountName == "" {
		return "default"
	}
	return pod.Spec.ServiceAccountName
}

func subscript(path, of string) (string, bool) {
	rest, ok := strings.CutPrefix(path, of+"['")
	if !ok {
		return "", false
	}
	return strings.CutSuffix(rest, "']")
}

// lines is a map as the downward API writes it.
func lines(m map[string]string) string {
	out := make([]string, 0, len(m))
	for k, v := range m {
		out = append(out, fmt.Sprintf("%s=%q", k, v))
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// expand replaces $(NAME) by its value; a name without one stays as it is, and $$ is $.
func expand(s string, values map[string]string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '$' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		switch s[i+1] {
		case '$':
			b.WriteByte('$')
			i++
		case '(':
			end := strings.IndexByte(s[i:], ')')
			if end < 0 {
				b.WriteByte(s[i])
				continue
			}
			name := s[i+2 : i+end]
			if v, ok := values[name]; ok {
				b.WriteString(v)
			} else {
				b.WriteString(s[i : i+end+1])
			}
			i += end
		default:
			b.WriteByte('$')
		}
	}
	return b.String()
}

// expandAll expands a command line by an environment.
func expandAll(words, env []string) []string {
	values := map[string]string{}
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		values[name] = value
	}
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = expand(w, values)
	}
	return out
}
