package node_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/internal/testkit/fakeztunnel"
	"github.com/ambit-mesh/ambit/internal/testkit/plugin"
)

// page reads a page of the agent.
func page(t testing.TB, l net.Listener, path string) (int, string) {
	t.Helper()
	tr := &http.Transport{DisableKeepAlives: true}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Get("http://" + l.Addr().String() + path)
	must(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(b)
}

func TestHealthAndMetrics(t *testing.T) {
	w := newWorld(t)
	release := make(chan struct{})
	w.api.Hook(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/api/v1/namespaces" && r.URL.Query().Get("watch") == "" {
			<-release
		}
		return false
	})
	w.start()
	if status, text := page(t, w.conf.Health, "/healthz"); status != http.StatusOK {
		t.Errorf("/healthz = %d %s", status, text)
	}
	wait(t, "the plugin", func() bool {
		status, text := page(t, w.conf.Health, "/readyz")
		return status == http.StatusServiceUnavailable && text == "not ready, pending: pods of this node, pods of an earlier agent\n"
	})
	close(release)
	wait(t, "readiness", func() bool { status, _ := page(t, w.conf.Health, "/readyz"); return status == http.StatusOK })
	z := w.proxy(fakeztunnel.Yes)
	z.Expect(t, "snapshot")
	p := w.pod("web", "u1", "10.0.0.1")
	w.api.Put(p.Object)
	if status, text := p.event(); status != http.StatusOK {
		t.Fatalf("event: %d %s", status, text)
	}
	z.Expect(t, p.added())
	w.api.Delete(p.Object)
	z.Expect(t, "del u1")
	var text string
	for _, want := range []string{
		"istio_cni_install_ready 1", `istio_cni_installs_total{result="SUCCESS"} 1`, `istio_cni_plugin_requests_total{response_code="200"} 1`,
		`nodeagent_reconcile_events_total{type="add"} 2`, `nodeagent_reconcile_events_total{type="delete"} 1`, "ztunnel_connected 1",
	} {
		wait(t, "metric "+want, func() bool {
			_, text = page(t, w.conf.Metrics, "/metrics")
			return strings.Contains(text, want+"\n")
		})
	}
}

// add calls the real plugin as a runtime does for a new pod.
func (w *world) add(program string, p *testPod) error {
	cmd := exec.Command(program)
	cmd.Env = []string{
		"CNI_COMMAND=ADD", "CNI_CONTAINERID=c", "CNI_IFNAME=eth0", "CNI_PATH=/", "CNI_NETNS=" + filepath.Join(w.conf.NetnsDir, p.Metadata.UID),
		"CNI_ARGS=K8S_POD_NAMESPACE=" + p.Metadata.Namespace + ";K8S_POD_NAME=" + p.Metadata.Name + ";K8S_POD_UID=" + p.Metadata.UID,
	}
	cmd.Stdin = strings.NewReader(fmt.Sprintf(`{"cniVersion":"1.0.0","name":"net","type":"istio-cni","cni_agent_run_dir":%q,"ambient_enabled":true,
		"ambit_agent_wait_seconds":1,"prevResult":{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.1/24"}],"dns":{}}}`, filepath.Dir(w.conf.NetnsDir)))
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// around is a real plugin, and a pod that is of the mesh and one that is not.
func (w *world) around() (program string, inside, outside *testPod) {
	w.t.Helper()
	program = filepath.Join(filepath.Dir(w.conf.NetnsDir), "real-cni")
	plugin.Build(w.t, program)
	w.namespace("plain", false)
	inside, outside = w.pod("web", "u1", "10.0.0.1"), w.pod("plain", "u2", "10.0.0.2")
	outside.Metadata.Namespace = "plain"
	w.api.Put(inside.Object)
	w.api.Put(outside.Object)
	return program, inside, outside
}

// CN-01, with what a real agent leaves behind when it ends.
func TestPodsWithoutTheAgent(t *testing.T) {
	w := newWorld(t)
	program, inside, outside := w.around()
	w.start()
	wait(t, "readiness", func() bool { status, _ := page(t, w.conf.Health, "/readyz"); return status == http.StatusOK })
	w.stop()
	if err := w.add(program, inside); err == nil || !strings.Contains(err.Error(), "it is of the mesh") {
		t.Errorf("CN-01: pod of the mesh without an agent: %v", err)
	}
	if err := w.add(program, outside); err != nil {
		t.Errorf("CN-01: pod outside the mesh without an agent: %v", err)
	}
	if inside.captured() || outside.captured() {
		t.Error("CN-01: somebody captured a pod though nobody was there")
	}
	w.start()
	z := w.proxy(fakeztunnel.Yes)
	z.Expect(t, "snapshot")
	if err := w.add(program, inside); err != nil {
		t.Errorf("CN-01: pod of the mesh once the agent is back: %v", err)
	}
	z.Expect(t, inside.added())
}
