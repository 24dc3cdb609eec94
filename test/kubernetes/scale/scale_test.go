// Package scale measures the control plane on an API server that holds the objects of a large cluster.
package scale

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/ambit-mesh/ambit/api/authorization"
	"github.com/ambit-mesh/ambit/api/discovery"
	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/internal/testkit/kubeapi"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/xds/client"
)

// patience is how long something may take that must happen.
const patience = 3 * time.Minute

// plane is ambitd, as a program of its own.
type plane struct {
	t                   *testing.T
	cmd                 *exec.Cmd
	xds, monitor, ready string
	log                 bytes.Buffer
	began               time.Time
}

func build(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ambitd")
	c := exec.Command("go", "build", "-ldflags", "-s -w", "-o", path, "github.com/ambit-mesh/ambit/cmd/ambitd")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("build ambitd: %v\n%s", err, out)
	}
	return path
}

func start(t *testing.T, path, kubeconfig string) *plane {
	t.Helper()
	p := &plane{t: t, began: time.Now()}
	for _, a := range []*string{&p.xds, &p.monitor, &p.ready} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		*a = l.Addr().String()
		l.Close()
	}
	p.cmd = exec.Command(path, "--kubeconfig", kubeconfig, "--xds", p.xds, "--monitor", p.monitor, "--ready", p.ready)
	p.cmd.Env = append(os.Environ(), "LOG_LEVEL=warn", "POD_NAME=istiod-1", "POD_NAMESPACE=istio-system")
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		res, err := http.Get("http://" + p.ready + "/ready")
		if err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return p
			}
		}
		if time.Now().After(end) {
			t.Fatalf("ambitd is not ready: %v", err)
		}
	}
}

func (p *plane) stop() {
	if p.cmd.ProcessState == nil {
		p.cmd.Process.Kill()
		p.cmd.Wait()
	}
}

// resident is the memory of the process in bytes.
func (p *plane) resident() float64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			if err != nil {
				p.t.Fatal(err)
			}
			return kb * 1024
		}
	}
	p.t.Fatal("no VmRSS")
	return 0
}

// processor is the time that the process has had.
func (p *plane) processor() time.Duration {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	f := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// settled waits until the process has nothing to do for a while, and gives what it takes then.
func (p *plane) settled() float64 {
	before := p.processor()
	for calm := 0; calm < 3; {
		time.Sleep(time.Second)
		now := p.processor()
		if calm++; now-before > 30*time.Millisecond {
			calm = 0
		}
		before = now
	}
	return p.resident()
}

// watcher is a node proxy that takes in everything.
type watcher struct {
	bytes, messages atomic.Int64
	policies        chan string
	mu              sync.Mutex
	held            map[string]bool
}

func (w *watcher) workloads() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.held)
}

func watch(t *testing.T, api *kubeapi.Server, p *plane) *watcher {
	t.Helper()
	w := &watcher{policies: make(chan string, 10_000), held: map[string]bool{}}
	token := api.Token("istio-system", "ztunnel", "ztunnel-1", mesh.TokenAudience, time.Hour)
	roots := ""
	for end := time.Now().Add(patience); roots == ""; time.Sleep(20 * time.Millisecond) {
		if m := api.Get("v1", "ConfigMap", "istio-system", mesh.RootConfigMap); m != nil {
			roots, _, _ = unstructured.NestedString(m.Object, "data", mesh.RootConfigKey)
		}
		if time.Now().After(end) {
			t.Fatal("no root certificates")
		}
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(roots))
	c := client.New(client.Config{
		Address: p.xds, Token: func() (string, error) { return token, nil },
		TLS: func() (*tls.Config, error) {
			return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool, ServerName: mesh.IstiodHost}, nil
		},
		Node: &discovery.Node{Id: "ztunnel~10.255.0.1~ztunnel-1.istio-system~istio-system.svc.cluster.local"},
		Handlers: []client.Handler{
			client.Handle(mesh.TypeAddress, false, func(up []client.Item[*workload.Address], down []string) error {
				w.mu.Lock()
				defer w.mu.Unlock()
				for _, i := range up {
					w.held[i.Name] = true
				}
				for _, n := range down {
					delete(w.held, n)
				}
				return nil
			}),
			client.Handle(mesh.TypeAuthorization, false, func(up []client.Item[*authorization.Authorization], _ []string) error {
				for _, i := range up {
					w.policies <- i.Name
				}
				return nil
			}),
		},
		Message: func(_ string, n int) { w.bytes.Add(int64(n)); w.messages.Add(1) },
		Log:     slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = c.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	select {
	case <-c.Synced(mesh.TypeAddress):
	case <-time.After(patience):
		t.Fatal("the watcher is told of nothing")
	}
	return w
}

// filler writes many objects.
type filler struct {
	t   *testing.T
	any dynamic.Interface
}

// each does n things, some at a time.
func (f filler) each(n int, do func(i int) error) {
	f.t.Helper()
	var next atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := do(i); err != nil {
					f.t.Errorf("object %d: %v", i, err)
					return
				}
			}
		})
	}
	all.Wait()
	if f.t.Failed() {
		f.t.FailNow()
	}
}

func (f filler) in(resource string) dynamic.ResourceInterface {
	return f.any.Resource(schema.GroupVersionResource{Version: "v1", Resource: resource}).Namespace("many")
}

func object(text string, args ...any) *unstructured.Unstructured {
	all, err := kubeapi.Objects(fmt.Sprintf(text, args...))
	if err != nil {
		panic(err)
	}
	return all[0]
}

func (f filler) service(i int) error {
	o := object("apiVersion: v1\nkind: Service\nmetadata: {name: s%d, namespace: many, labels: {app: a%d, team: t%d}}\nspec: {selector: {app: a%d}, ports: [{name: http, port: 80, targetPort: 8080}, {name: grpc, port: 90, targetPort: grpc}]}\n", i, i, i%10, i)
	_, err := f.in("services").Create(context.Background(), o, metav1.CreateOptions{})
	return err
}

const podText = `
apiVersion: v1
kind: Pod
metadata:
  name: a%[2]d-7d4b9c6f5-p%[1]d
  namespace: many
  labels: {app: a%[2]d, version: v1, pod-template-hash: 7d4b9c6f5, team: t%[3]d}
  annotations: {ambient.istio.io/redirection: enabled, prometheus.io/scrape: 'true', prometheus.io/port: '9090', checksum/config: 0e1f0c2d5b6a79887766554433221100ffeeddccbbaa99887766554433221100}
  ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: a%[2]d-7d4b9c6f5, uid: 00000000-0000-0000-0000-0000000%[6]05d, controller: true}]
spec:
  nodeName: n%[4]d
  serviceAccountName: sa%[2]d
  volumes: [{name: config, configMap: {name: config}}, {name: token, projected: {sources: [{serviceAccountToken: {path: token}}]}}, {name: tmp, emptyDir: {}}]
  containers:
  - name: app
    image: registry.example/team/app:1.2.3
    args: [serve, --listen, ':8080', --log-level, info]
    ports: [{name: http, containerPort: 8080}, {name: grpc, containerPort: 9000}]
    env: [{name: A, value: one}, {name: B, value: two}, {name: HOST, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]
    resources: {requests: {cpu: 100m, memory: 128Mi}, limits: {memory: 256Mi}}
    volumeMounts: [{name: config, mountPath: /etc/app}, {name: token, mountPath: /var/run/token}, {name: tmp, mountPath: /tmp}]
    readinessProbe: {httpGet: {path: /ready, port: 8080}}
    livenessProbe: {httpGet: {path: /live, port: 8080}}
status:
  phase: Running
  podIP: %[5]s
  podIPs: [{ip: %[5]s}]
  conditions: [{type: Initialized, status: 'True'}, {type: Ready, status: '%[7]s'}, {type: ContainersReady, status: '%[7]s'}, {type: PodScheduled, status: 'True'}]
  containerStatuses: [{name: app, ready: true, restartCount: 0, image: registry.example/team/app:1.2.3, imageID: sha256:00, containerID: containerd://00, state: {running: {startedAt: '2026-01-02T03:04:05Z'}}}]
`

func pod(i, services int, ready string) *unstructured.Unstructured {
	s := i % services
	return object(podText, i, s, s%10, i%50, fmt.Sprintf("10.%d.%d.%d", 100+i>>16, i>>8&255, i&255), s, ready)
}

func (f filler) pod(i, services int) error {
	o := pod(i, services, "True")
	made, err := f.in("pods").Create(context.Background(), o, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	o.SetResourceVersion(made.GetResourceVersion())
	o.SetUID(made.GetUID())
	_, err = f.in("pods").UpdateStatus(context.Background(), o, metav1.UpdateOptions{})
	return err
}

// ready changes whether a pod is ready.
func (f filler) ready(i, services int, ready string) error {
	now, err := f.in("pods").Get(context.Background(), pod(i, services, ready).GetName(), metav1.GetOptions{})
	if err != nil {
		return err
	}
	now.Object["status"] = pod(i, services, ready).Object["status"]
	_, err = f.in("pods").UpdateStatus(context.Background(), now, metav1.UpdateOptions{})
	return err
}

// TestScale takes the figures of docs/performance.md with AMBIT_SCALE=1, which is 1,000 Services and 5,000 pods; else a
// fifth of that. The bounds are far above what is measured: they are for what goes wrong, not for what gets slower.
func TestScale(t *testing.T) {
	api := kubeapi.Start(t)
	services, pods := 200, 1000
	if os.Getenv("AMBIT_SCALE") != "" {
		services, pods = 1000, 5000
	}
	for _, k := range kinds.All() {
		if strings.HasSuffix(k.Group, ".istio.io") {
			api.Define(k.Group, k.Kind, k.Plural, k.Namespaced, k.Versions...)
		}
	}
	api.Apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: istio-system}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: many}\n---\n" +
		"apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: ztunnel, namespace: istio-system}\n---\n" +
		"apiVersion: v1\nkind: Pod\nmetadata: {name: ztunnel-1, namespace: istio-system}\nspec: {nodeName: n0, serviceAccountName: ztunnel, containers: [{name: c, image: i}]}\nstatus: {phase: Running, podIP: 10.255.0.1, podIPs: [{ip: 10.255.0.1}]}\n")
	any, err := dynamic.NewForConfig(api.Config)
	if err != nil {
		t.Fatal(err)
	}
	f := filler{t, any}
	path := build(t)
	const mb = 1 << 20
	figure := func(name, value string, ok bool) {
		t.Logf("%-62s %s", name, value)
		if !ok {
			t.Errorf("%s: %s is beyond its bound", name, value)
		}
	}

	p := start(t, path, api.Kubeconfig)
	idle := p.settled()
	figure("RSS idle", fmt.Sprintf("%.1f MB", idle/mb), idle < 150*mb)
	p.stop()

	f.each(services, f.service)
	f.each(pods, func(i int) error { return f.pod(i, services) })
	p = start(t, path, api.Kubeconfig)
	took := time.Since(p.began)
	figure(fmt.Sprintf("start to ready, %d Services and %d pods", services, pods), fmt.Sprintf("%.2f s, %.2f s CPU", took.Seconds(), p.processor().Seconds()), took < time.Minute)
	full := p.settled()
	figure("RSS with them", fmt.Sprintf("%.1f MB", full/mb), full < 600*mb)

	before := p.processor()
	w := watch(t, api, p)
	for end := time.Now().Add(patience); w.workloads() < services+pods; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the watcher has %d of %d", w.workloads(), services+pods)
		}
	}
	first := w.bytes.Load()
	perObject := float64(first) / float64(services+pods)
	figure("xDS to one proxy that wants all", fmt.Sprintf("%.2f MB, %.0f B each, %.2f s CPU", float64(first)/mb, perObject, (p.processor()-before).Seconds()), perObject < 2000)
	figure("RSS with it connected", fmt.Sprintf("%.1f MB", p.settled()/mb), true)

	churn := pods / 5
	before, bytesBefore, began := p.processor(), w.bytes.Load(), time.Now()
	f.each(churn, func(i int) error { return f.ready(i, services, "False") })
	f.each(churn, func(i int) error { return f.ready(i, services, "True") })
	rate := float64(2*churn) / time.Since(began).Seconds()
	after := p.settled()
	used, sent := p.processor()-before, w.bytes.Load()-bytesBefore
	each := used / time.Duration(2*churn)
	figure(fmt.Sprintf("churn: %d pods become unready and ready, %.0f/s", churn, rate),
		fmt.Sprintf("%.0f µs CPU and %d B each", float64(each.Microseconds()), sent/int64(2*churn)), each < 20*time.Millisecond)
	figure("RSS after it", fmt.Sprintf("%.1f MB", after/mb), after < 600*mb)

	policies := any.Resource(schema.GroupVersionResource{Group: "security.istio.io", Version: "v1", Resource: "authorizationpolicies"}).Namespace("many")
	var waits []time.Duration
	for len(w.policies) > 0 {
		<-w.policies
	}
	for i := range 100 {
		o := object("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p%d, namespace: many}\nspec: {selector: {matchLabels: {app: a%d}}, action: DENY, rules: [{from: [{source: {namespaces: [evil]}}]}]}\n", i, i%services)
		if _, err := policies.Create(context.Background(), o, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		accepted := time.Now()
		for name := ""; name != "many/"+o.GetName(); {
			select {
			case name = <-w.policies:
			case <-time.After(patience):
				t.Fatal("the policy does not come")
			}
		}
		waits = append(waits, time.Since(accepted))
	}
	slices.Sort(waits)
	p50, p99 := waits[len(waits)/2], waits[len(waits)*99/100]
	figure("AuthorizationPolicy accepted to received by the proxy", fmt.Sprintf("p50 %.1f ms, p99 %.1f ms", p50.Seconds()*1e3, p99.Seconds()*1e3), p99 < 5*time.Second)
	if t.Failed() {
		t.Logf("ambitd says:\n%s", p.log.String())
	}
}
