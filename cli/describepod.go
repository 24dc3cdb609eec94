package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/local/table"
)

// podRows tell of a pod and its containers.
func podRows(p *corev1.Pod) [][]string {
	rows := [][]string{
		{"Node:", p.Spec.NodeName + "/" + p.Status.HostIP},
		{"Service Account:", p.Spec.ServiceAccountName},
		{"Status:", table.PodStatus(p)},
		{"IP:", p.Status.PodIP},
	}
	if p.Status.StartTime != nil {
		rows = append(rows, []string{"Start Time:", p.Status.StartTime.Format(time.RFC3339)})
	}
	for _, o := range p.OwnerReferences {
		if o.Controller != nil && *o.Controller {
			rows = append(rows, []string{"Controlled By:", o.Kind + "/" + o.Name})
		}
	}
	if p.Status.Message != "" {
		rows = append(rows, []string{"Message:", p.Status.Message})
	}
	states := map[string]corev1.ContainerStatus{}
	for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		states[c.Name] = c
	}
	for _, c := range p.Spec.InitContainers {
		rows = append(rows, containerRows("Init Container", c, states[c.Name])...)
	}
	for _, c := range p.Spec.Containers {
		rows = append(rows, containerRows("Container", c, states[c.Name])...)
	}
	return rows
}

func containerRows(what string, c corev1.Container, st corev1.ContainerStatus) [][]string {
	rows := [][]string{{what + " " + c.Name + ":", strings.TrimSpace(c.Image + "  " + strings.Join(slices.Concat(c.Command, c.Args), " "))}}
	add := func(title, text string) {
		if text != "" {
			rows = append(rows, []string{"  " + title, text})
		}
	}
	var ports []string
	for _, p := range c.Ports {
		ports = append(ports, strings.TrimSpace(fmt.Sprintf("%s %d/%s", p.Name, p.ContainerPort, protocolOf(p))))
	}
	add("Ports:", strings.Join(ports, ", "))
	add("State:", stateText(st.State))
	if st.LastTerminationState.Terminated != nil {
		add("Last State:", stateText(st.LastTerminationState))
	}
	add("Ready:", fmt.Sprintf("%v, restarted %d times", st.Ready, st.RestartCount))
	for i, e := range c.Env {
		title := "Environment:"
		if i > 0 {
			title = ""
		}
		rows = append(rows, []string{"  " + title, e.Name + "=" + envText(e)})
	}
	for i, m := range c.VolumeMounts {
		title := "Mounts:"
		if i > 0 {
			title = ""
		}
		rows = append(rows, []string{"  " + title, fmt.Sprintf("%s from %s", m.MountPath, m.Name)})
	}
	return rows
}

func protocolOf(p corev1.ContainerPort) corev1.Protocol {
	if p.Protocol == "" {
		return corev1.ProtocolTCP
	}
	return p.Protocol
}

// envText is a variable's value, or where it comes from.
func envText(e corev1.EnvVar) string {
	switch from := e.ValueFrom; {
	case from == nil:
		return e.Value
	case from.SecretKeyRef != nil:
		return fmt.Sprintf("<key %s of Secret %s>", from.SecretKeyRef.Key, from.SecretKeyRef.Name)
	case from.ConfigMapKeyRef != nil:
		return fmt.Sprintf("<key %s of ConfigMap %s>", from.ConfigMapKeyRef.Key, from.ConfigMapKeyRef.Name)
	case from.FieldRef != nil:
		return fmt.Sprintf("<%s>", from.FieldRef.FieldPath)
	}
	return "<elsewhere>"
}

func stateText(s corev1.ContainerState) string {
	switch {
	case s.Running != nil:
		return "running since " + s.Running.StartedAt.Format(time.RFC3339)
	case s.Waiting != nil:
		return strings.TrimSpace("waiting: " + s.Waiting.Reason + "  " + s.Waiting.Message)
	case s.Terminated != nil:
		t := s.Terminated
		return strings.TrimSpace(fmt.Sprintf("terminated at %s: %s, exit code %d  %s", t.FinishedAt.Format(time.RFC3339), t.Reason, t.ExitCode, t.Message))
	}
	return "unknown"
}
