package kubernetes

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/samples/apps/load"
	"github.com/ambit-mesh/ambit/test/kubernetes/kube"
)

// TestControlPlaneAway: the control plane is gone for ten minutes under load, in a cluster of its own beside the others
// (F1, FT-01, F10). AMBIT_KUBERNETES_AWAY says how long instead, such as 2m.
func TestControlPlaneAway(t *testing.T) {
	t.Parallel()
	away := 10 * time.Minute
	if s := os.Getenv("AMBIT_KUBERNETES_AWAY"); s != "" {
		var err error
		if away, err = time.ParseDuration(s); err != nil {
			t.Fatalf("AMBIT_KUBERNETES_AWAY: %v", err)
		}
	}
	c := kube.Start(t, kube.Options{Nodes: 2, Apart: true})
	defer func() { t.Logf("\n%s", c.Table()) }()
	// Certificates are renewed at a third of their life: half of the time that the control plane is away.
	c.Install(t, "ambient", "--set", fmt.Sprintf("values.ztunnel.env.SECRET_TTL=%ds", int((away*3/2).Seconds())))
	c.Run(t, 1, kube.Scenario{Name: "control plane away", Run: func(t *testing.T, c *kube.Cluster) { controlPlaneAway(t, c, away) }})
}

func controlPlaneAway(t *testing.T, c *kube.Cluster, away time.Duration) {
	m := crowded(t, c)
	// A pod that is denied from now on, one that will be, and one that leaves.
	m.apply(t, m.ns, service("web", ""), pod{name: "web", node: m.two}.yaml(), client("denied", m.one).yaml(), client("later", m.one).yaml(), client("leaves", m.one).yaml(),
		deny("denied", "denied"))
	m.ready(t, m.ns)
	for _, p := range []string{"web", "denied", "later", "leaves"} {
		m.captured(t, m.ns, p)
	}
	m.answered(t, m.ns, "later", "http://web/", "web")
	m.Eventually(t, patience, "the policy is in force", func() error {
		if _, err := m.ask(m.ns, "denied", "http://web/"); err == nil {
			return fmt.Errorf("it is let in")
		}
		return nil
	})
	before := m.certificates(t)
	l := m.offer(t, "rate=30&long=20")

	start := time.Now()
	c.Kubectl(t, "scale", "-n", "istio-system", "deployment/istiod", "--replicas=0")
	c.Kubectl(t, "wait", "-n", "istio-system", "--for=delete", "pod", "-l", "app=istiod", "--timeout=90s")
	t.Log("the control plane is gone")
	// A pod leaves, and one comes of an identity that its node has never seen: it starts, captured, and nothing of it is in
	// the clear or in another's name until the control plane is back.
	c.Kubectl(t, "delete", "pod", "-n", m.ns, "leaves", "--grace-period=1")
	m.apply(t, m.ns, client("comes", m.one).yaml())
	m.ready(t, m.ns, "-l", "app=comes")
	if !m.inMesh(t, m.ns, "comes") {
		t.Error("a pod that came meanwhile is not captured")
	}
	m.refused(t, m.ns, "comes", m.address(t, m.ns, "web")+":8080", m.ns, "web", "8080")
	m.refused(t, m.ns, "denied", "web", m.ns, "web", "8080")
	// What is decided meanwhile counts on return. The webhook is away too: it is security that must not be changed unseen.
	policy := strings.NewReplacer("NS", m.ns).Replace(deny("later", "later"))
	if out, err := m.tryApply(policy); err == nil {
		t.Log("a policy was accepted meanwhile")
	} else if !strings.Contains(out, "validation.istio.io") {
		t.Errorf("a policy applied meanwhile: %v\n%s", err, out)
	} else {
		t.Logf("a policy applied meanwhile is refused, and says so: %s", strings.TrimSpace(out))
	}
	// A policy that is taken away counts until then.
	c.Kubectl(t, "delete", "authorizationpolicy", "-n", m.ns, "denied")
	// Labels are no business of the webhook: a pod that joins meanwhile is captured.
	plain := c.Namespace(t, "joins")
	m.apply(t, plain, pod{name: "joins", node: m.two}.yaml())
	m.ready(t, plain)
	c.Kubectl(t, "label", "namespace", plain, "istio.io/dataplane-mode=ambient")
	m.captured(t, plain, "joins")
	for time.Since(start) < away {
		time.Sleep(min(30*time.Second, away-time.Since(start))) // the fault's length
		m.answered(t, m.ns, "later", "http://web/", "web")
		m.refused(t, m.ns, "denied", "web", m.ns, "web", "8080")
	}

	back := time.Now()
	c.Kubectl(t, "scale", "-n", "istio-system", "deployment/istiod", "--replicas=1")
	m.rolledOut(t, "deployment/istiod")
	t.Logf("the control plane is ready %v after it was asked for", time.Since(back).Round(time.Millisecond))
	back = time.Now()
	since := func(what string) { t.Logf("%s %v after it was back", what, time.Since(back).Round(time.Millisecond)) }
	m.answered(t, m.ns, "comes", "http://web/", "web")
	since("the pod that came meanwhile has its identity and is answered")
	m.identity(t, m.ns, "comes", m.address(t, m.ns, "web")+":8080")
	m.Eventually(t, patience, "the policy is accepted", func() error {
		_, err := m.tryApply(policy)
		return err
	})
	m.Eventually(t, patience, "the policy of meanwhile is in force", func() error {
		if _, err := m.ask(m.ns, "later", "http://web/"); err == nil {
			return fmt.Errorf("later is let in")
		}
		return nil
	})
	since("the policy is in force")
	m.answered(t, m.ns, "denied", "http://web/", "web")
	since("the policy that was taken away counts no more,")
	// Who has a certificate that is good yet asks again after two and a half minutes at most.
	m.Eventually(t, 4*time.Minute, "every certificate is renewed", func() error {
		now := m.certificates(t)
		for id, was := range before {
			if is, ok := now[id]; ok && is == was {
				return fmt.Errorf("%s has the certificate %s of before", id, is)
			}
		}
		return nil
	})
	since("certificates are renewed")
	m.apply(t, m.ns, m.first("first", m.two, "", "[load, first]"))
	m.ready(t, m.ns, "-l", "app=first")
	var f load.First
	if out := c.Kubectl(t, "logs", "-n", m.ns, "first"); json.Unmarshal([]byte(out), &f) != nil || !f.Captured {
		t.Errorf("a pod that came afterwards says %s", out)
	}
	l.endWithout(t)
}

// deny describes a policy of the server web against an account.
func deny(name, account string) string {
	return fmt.Sprintf(`{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: %s}, spec: {selector: {matchLabels: {app: web}},
  action: DENY, rules: [{from: [{source: {principals: [cluster.local/ns/NS/sa/%s]}}]}]}}`, name, account)
}

// certificates are the serial numbers that node proxies hold, by node and identity.
func (m *crowd) certificates(t *testing.T) map[string]string {
	t.Helper()
	var all []struct {
		Identity  string `json:"identity"`
		CertChain []struct {
			SerialNumber string `json:"serialNumber"`
		} `json:"certChain"`
	}
	found := map[string]string{}
	for _, node := range []string{m.one, m.two} {
		out := m.Ambit(t, "ztunnel-config", "certificate", "--node", node, "-o", "json")
		if err := json.Unmarshal([]byte(out), &all); err != nil {
			t.Fatalf("certificates of %s: %v in %s", node, err, out)
		}
		for _, c := range all {
			if len(c.CertChain) > 0 && strings.Contains(c.Identity, "/ns/"+m.ns+"/") {
				found[node+" "+c.Identity] = c.CertChain[0].SerialNumber
			}
		}
	}
	if len(found) == 0 {
		t.Fatal("node proxies hold no certificate of the namespace")
	}
	return found
}
