package node_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ambit-mesh/ambit/internal/testkit/fakeapi"
	"github.com/ambit-mesh/ambit/internal/testkit/fakeztunnel"
	"github.com/ambit-mesh/ambit/internal/testkit/netnstest"
	"github.com/ambit-mesh/ambit/internal/testkit/podtest"
	"github.com/ambit-mesh/ambit/linux/link"
	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/linux/nft"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/node"
	"github.com/ambit-mesh/ambit/node/cniplugin"
	"github.com/ambit-mesh/ambit/node/internal/capture"
	"github.com/ambit-mesh/ambit/node/internal/redirect"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wait polls for what has no event of its own.
func wait(t testing.TB, what string, f func() bool) {
	t.Helper()
	waitFor(t, 10*time.Second, what, f)
}

func waitFor(t testing.TB, limit time.Duration, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("did not come: %s", what)
		}
	}
}

// world is a node: an API server, network namespaces of pods, and an agent that can be started again.
type world struct {
	t      *testing.T
	api    *fakeapi.Server
	bridge *netns.Namespace
	conf   node.Config
	stop   func()
	zt     *testPod // where node proxies run
}

func newWorld(t *testing.T) *world {
	netnstest.Need(t)
	leaks := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, leaks) })
	t.Cleanup(func() { must(t, nft.Delete(nil, capture.Source{}.Host(nil), capture.Source{}.Bridges())) }) // an agent leaves it for the next
	dir, err := os.MkdirTemp("", "node")
	must(t, err)
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	w := &world{t: t, api: fakeapi.Start(t), bridge: podtest.Bridge(t), stop: func() {}}
	for _, d := range []string{"netns", "bin", "conf"} {
		must(t, os.Mkdir(filepath.Join(dir, d), 0o700))
	}
	must(t, os.WriteFile(filepath.Join(dir, "ambit-cni"), []byte("plugin"), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "conf", "10-net.conflist"), []byte(`{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"bridge"}]}`), 0o600))
	w.conf = node.Config{
		NodeName: "n1", APIServer: w.api.URL, TokenFile: w.api.TokenFile, CAFile: w.api.CAFile,
		NetnsDir: filepath.Join(dir, "netns"), ZDSSocket: filepath.Join(dir, "z"), EventSocket: filepath.Join(dir, cniplugin.EventSocket),
		Plugin: filepath.Join(dir, "ambit-cni"), BinDir: filepath.Join(dir, "bin"), ConfDir: filepath.Join(dir, "conf"), RunDir: dir,
		PodNamespace: "istio-system", ExcludeNamespaces: []string{"kube-system"},
		RepairEvery: 200 * time.Millisecond, LeaveAfter: 300 * time.Millisecond,
	}
	w.namespace("default", true)
	w.zt = w.pod("ztunnel", "zt", "10.0.0.200")
	w.zt.Metadata.Namespace, w.zt.Spec.ServiceAccountName = "istio-system", "ztunnel"
	w.api.Put(w.zt.running())
	return w
}

// proxy connects a node proxy, out of its pod.
func (w *world) proxy(reply fakeztunnel.Answer) *fakeztunnel.Ztunnel {
	w.t.Helper()
	return fakeztunnel.ConnectFrom(w.t, w.zt.ns, w.conf.ZDSSocket, reply)
}

func (w *world) namespace(name string, ambient bool) {
	o := fakeapi.Object{Metadata: fakeapi.Meta{Name: name}}
	if ambient {
		o.Metadata.Labels = map[string]string{mesh.LabelDataplaneMode: mesh.DataplaneModeAmbient}
	}
	w.api.Put(o)
}

// start runs an agent; w.stop ends it as a node's restart would.
func (w *world) start() {
	w.t.Helper()
	c := w.conf
	for _, l := range []*net.Listener{&c.Health, &c.Metrics} {
		var err error
		*l, err = net.Listen("tcp", "127.0.0.1:0")
		must(w.t, err)
	}
	w.conf.Health, w.conf.Metrics = c.Health, c.Metrics
	c.Log = slog.New(slog.NewTextHandler(w.t.Output(), nil))
	n, err := node.New(c)
	must(w.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	stopped := false
	w.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("Run = %v", err)
		}
	}
	w.t.Cleanup(w.stop)
}

func (w *world) uninstall() {
	w.t.Helper()
	c := w.conf
	c.Log = slog.New(slog.NewTextHandler(w.t.Output(), nil))
	n, err := node.New(c)
	must(w.t, err)
	must(w.t, n.Uninstall())
}

// testPod is a pod with a network namespace at the runtime's usual place.
type testPod struct {
	fakeapi.Object
	ns *netns.Namespace
	w  *world
	ip netip.Addr
}

// pod makes a namespace as the runtime would; the API does not know of the pod yet.
func (w *world) pod(name, uid, ip string) *testPod {
	w.t.Helper()
	p := &testPod{w: w, ip: netip.MustParseAddr(ip)}
	p.ns = podtest.Pod(w.t, w.bridge, uid, p.ip)
	p.mount(uid)
	p.Metadata = fakeapi.Meta{Name: name, Namespace: "default", UID: uid}
	p.Spec.NodeName, p.Spec.ServiceAccountName = "n1", "sa"
	return p
}

func (p *testPod) mount(name string) {
	path := filepath.Join(p.w.conf.NetnsDir, name)
	must(p.w.t, p.ns.Mount(path))
	p.w.t.Cleanup(func() {
		if err := netns.Unmount(path); err != nil {
			p.w.t.Error(err)
		}
	})
}

// running is the pod as the API shows it when it runs.
func (p *testPod) running() fakeapi.Object {
	o := p.Object
	o.Status.Phase, o.Status.PodIP = "Running", p.ip.String()
	return o
}

func (p *testPod) added() string {
	return fakeztunnel.Add(p.Metadata.UID, p.Metadata.Namespace, p.Metadata.Name, "sa", p.ns.Inode())
}

func (p *testPod) annotation() string {
	o, _ := p.w.api.Pod(p.Metadata.Namespace, p.Metadata.Name)
	return o.Metadata.Annotations[mesh.AnnotationRedirection]
}

func (p *testPod) annotated(want string) {
	p.w.t.Helper()
	wait(p.w.t, fmt.Sprintf("annotation %q of %s", want, p.Metadata.Name), func() bool { return p.annotation() == want })
}

// tables lists what rules the pod's namespace holds.
func (p *testPod) tables() string {
	p.w.t.Helper()
	names, err := nft.Names(p.ns)
	must(p.w.t, err)
	mark, err := link.HasRule(p.ns, link.Rule{Mark: mesh.ConnMark, Mask: mesh.MarkMask, Priority: 32764, Table: 100})
	must(p.w.t, err)
	if mark {
		names = append(names, "rule")
	}
	return strings.Join(names, " ")
}

func (p *testPod) captured() bool { return strings.Contains(p.tables(), "istio-ambient-nat") }

// capture puts rules into the pod's namespace, as an earlier agent would have.
func (p *testPod) capture() {
	p.w.t.Helper()
	must(p.w.t, redirect.Apply(p.ns, capture.For(capture.Pod{V6: true})))
}

// probed reports whether probes of the pod are exempt.
func (p *testPod) probed() bool {
	all, err := nft.Addrs(nil, capture.Source{}.Host(nil), capture.ProbesV4)
	return err == nil && slices.Contains(all, p.ip) // no table, no exemption
}

// event tells the agent of the pod as the plugin does, and gives the status and body of the answer.
func (p *testPod) event() (int, string) {
	p.w.t.Helper()
	return p.eventOf(filepath.Join(p.w.conf.NetnsDir, p.Metadata.UID))
}

// eventOf does so with another name of the namespace.
func (p *testPod) eventOf(space string) (int, string) {
	p.w.t.Helper()
	b, err := json.Marshal(cniplugin.Event{
		Netns: space, PodName: p.Metadata.Name, PodNamespace: p.Metadata.Namespace, PodUID: p.Metadata.UID,
		IPs: []cniplugin.IPConfig{{Address: cniplugin.IPAddress{IP: p.ip.String()}}},
	})
	must(p.w.t, err)
	return p.w.post(b)
}

func (w *world) post(body []byte) (int, string) {
	w.t.Helper()
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", w.conf.EventSocket)
	}}
	defer tr.CloseIdleConnections()
	var resp *http.Response
	wait(w.t, "answer of the event socket", func() bool {
		var err error
		resp, err = (&http.Client{Transport: tr}).Post("http://unix/cmdadd", "application/json", bytes.NewReader(body))
		return err == nil
	})
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(w.t, err)
	return resp.StatusCode, string(text)
}
