package kubelet_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/local/internal/store"
)

func TestOrdinaryPodsGetNoStateAndNoNode(t *testing.T) {
	c := start(t)
	for name, path := range map[string]string{"state": "/var/lib/ambit/pki", "keys": "/var/lib/x/../ambit", "netns": "/var/run/netns", "plugins": "/opt/cni/bin"} {
		p := pod(name, sh("exec sleep 1000"))
		p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: path}}}}
		c.create(p)
		c.awaitEvent(name, "FailedMount", "only ")
	}
}

func TestOrdinaryPodsAreConfined(t *testing.T) {
	c := start(t)
	yes := true
	ctr := sh("exec sleep 1000")
	ctr.SecurityContext = &corev1.SecurityContext{
		Privileged: &yes, Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"NET_ADMIN", "SYS_ADMIN"}},
	}
	c.create(pod("strong", ctr))
	c.await("strong", "ready", ready)
	c.awaitEvent("strong", "CapabilitiesLimited", "privileged, SYS_ADMIN")
	c.awaitEvent("strong", "Started", "container main")
	if out, err := c.in("strong", "grep ^CapEff /proc/self/status"); err != nil || out != "CapEff:\t0000000000001000\n" {
		t.Errorf("the pod has %q (%v), want NET_ADMIN alone", out, err)
	}
}

// awaitEvent waits for an event about a pod that has the words.
func (c *cluster) awaitEvent(name, reason, words string) {
	c.t.Helper()
	c.await(name, "told of as "+reason, func(*corev1.Pod) bool {
		for _, e := range store.List[*corev1.Event](c.s, "default") {
			if e.InvolvedObject.Name == name && e.Reason == reason && strings.Contains(e.Message, words) {
				return true
			}
		}
		return false
	})
}
