package kubelet_test

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/local/internal/kubelet"
	"github.com/ambit-mesh/ambit/local/internal/runtime"
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

// awaitLog follows a pod's log until it is as long as wanted: what a program wrote may be on its way yet.
func (c *cluster) awaitLog(p *corev1.Pod, want string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 20*time.Second)
	defer cancel()
	said := enough{want: len(want), reached: cancel}
	if err := c.k.Logs(ctx, p, kubelet.LogOptions{LogOptions: runtime.LogOptions{Tail: -1, Follow: true}}, &said); err != nil && ctx.Err() == nil {
		c.t.Fatal(err)
	}
	if got := said.String(); got != want {
		c.t.Errorf("the pod said %q, want %q", got, want)
	}
}

// enough calls reached when it was given as much as wanted.
type enough struct {
	bytes.Buffer
	want    int
	reached func()
}

func (e *enough) Write(b []byte) (int, error) {
	n, err := e.Buffer.Write(b)
	if e.Len() >= e.want {
		e.reached()
	}
	return n, err
}
