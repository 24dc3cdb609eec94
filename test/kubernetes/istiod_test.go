package kubernetes

import (
	"context"
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
		m.asked(t)
		none := m.writes(t, "killed")
		c.Kubectl(t, "rollout", "restart", "-n", "istio-system", "deployment/istiod")
		m.rolledOut(t, "deployment/istiod")
		m.inForce(t, "rolled")
		none(t)
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

// asked holds that the API server asks the control plane about objects of the mesh, and takes none that it cannot ask about (XD-11).
func (m *crowd) asked(t *testing.T) {
	t.Helper()
	m.Eventually(t, patience, "what cannot be asked about is refused", func() error {
		policies, err := m.Try("get", "validatingwebhookconfiguration", "istio-validator-istio-system", "-o", "jsonpath={.webhooks[*].failurePolicy}")
		if err == nil && policies != "Fail Fail" {
			err = errors.New(policies)
		}
		return err
	})
	out, err := m.tryApply(`{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: wrong}, spec: {action: DENY, rules: [{from: [{source: {ipBlocks: [10.0.0.0/99]}}]}]}}`)
	if err == nil || !strings.Contains(out+err.Error(), "spec.rules[0].from[0].source.ipBlocks") {
		t.Errorf("an object that is not valid: %v: %s", err, out)
	}
}

// writes changes a policy all the time, without effect. The function that it returns ends it, and holds that no change was refused.
func (m *crowd) writes(t *testing.T, policy string) (none func(t *testing.T)) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	done, n, refused := make(chan struct{}), 0, []string{}
	go func() {
		defer close(done)
		for ; ctx.Err() == nil; n++ {
			patch := fmt.Sprintf(`{"spec":{"selector":{"matchLabels":{"app":"a%d"}}}}`, n)
			if out, err := m.Try("patch", "-n", m.ns, "authorizationpolicy/"+policy, "--dry-run=server", "--type=merge", "-p", patch); err != nil {
				refused = append(refused, fmt.Sprintf("%v: %s", err, out))
			}
			time.Sleep(100 * time.Millisecond) // the load's rate
		}
	}()
	return func(t *testing.T) {
		t.Helper()
		stop()
		<-done
		if len(refused) > 0 || n < 10 {
			t.Errorf("%d of %d changes of a policy were refused: %v", len(refused), n, refused)
		}
		t.Logf("%d changes of a policy were taken meanwhile", n)
	}
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
