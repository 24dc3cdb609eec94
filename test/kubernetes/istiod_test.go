package kubernetes

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/test/kubernetes/kube"
)

// testIstiod: the control plane is killed, replaced, and doubled with a change of leader: connections and new pods feel
// nothing of it (F14, XD-09).
func testIstiod(t *testing.T, c *kube.Cluster) {
	m := crowded(t, c)
	l, ch := m.offer(t, "rate=100&long=20"), m.churn(t)
	t.Run("F14 killed", func(t *testing.T) {
		node := m.get(t, "istio-system", "pod", ".items[?(@.metadata.labels.app==\"istiod\")].spec.nodeName")
		at := m.kill(t, strings.Fields(node)[0], "ambitd")
		m.inForce(t, "killed")
		t.Logf("it writes again %v after it was killed", time.Since(at).Round(time.Millisecond))
	})
	t.Run("XD-09 rolled", func(t *testing.T) {
		c.Kubectl(t, "rollout", "restart", "-n", "istio-system", "deployment/istiod")
		m.rolledOut(t, "deployment/istiod")
		m.inForce(t, "rolled")
	})
	t.Run("leader changes", func(t *testing.T) {
		c.Kubectl(t, "scale", "-n", "istio-system", "deployment/istiod", "--replicas=2")
		defer func() {
			c.Kubectl(t, "scale", "-n", "istio-system", "deployment/istiod", "--replicas=1")
			m.rolledOut(t, "deployment/istiod")
		}()
		m.rolledOut(t, "deployment/istiod")
		leader := m.leader(t)
		at := time.Now()
		c.Kubectl(t, "delete", "pod", "-n", "istio-system", leader, "--grace-period=0", "--force")
		m.Eventually(t, patience, "another replica leads", func() error {
			if now := m.leader(t); now == leader {
				return fmt.Errorf("it is %s still", now)
			}
			return nil
		})
		t.Logf("another leads %v after the first was deleted", time.Since(at).Round(time.Millisecond))
		m.inForce(t, "led")
	})
	ch.end(t)
	l.endWithout(t)
}

// leader is the pod of the control plane that writes.
func (m *crowd) leader(t *testing.T) string {
	t.Helper()
	var pod string
	m.Eventually(t, patience, "a replica leads", func() error {
		holder, err := m.Try("get", "lease", "-n", "istio-system", "ambit-leader", "-o", "jsonpath={.spec.holderIdentity}")
		if pod, _, _ = strings.Cut(strings.TrimSpace(holder), "_"); err == nil && pod == "" {
			err = errors.New("none")
		}
		return err
	})
	return pod
}

// inForce holds that a policy which is applied now comes into force everywhere, and that its status says so.
func (m *crowd) inForce(t *testing.T, name string) {
	t.Helper()
	m.Eventually(t, patience, "the policy is accepted", func() error { // the webhook is the control plane's
		_, err := m.tryApply(`{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: ` + name + `}, spec: {selector: {matchLabels: {app: nobody}}, action: DENY, rules: [{}]}}`)
		return err
	})
	m.Kubectl(t, "wait", "-n", m.ns, "--for=condition=ZtunnelAccepted", "authorizationpolicy/"+name, "--timeout=90s")
}
