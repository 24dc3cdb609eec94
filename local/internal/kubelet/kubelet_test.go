package kubelet_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/internal/testkit/netnstest"
	"github.com/ambit-mesh/ambit/local/internal/kubelet"
	"github.com/ambit-mesh/ambit/local/internal/network"
	"github.com/ambit-mesh/ambit/local/internal/network/ptp"
	"github.com/ambit-mesh/ambit/local/internal/runtime"
	"github.com/ambit-mesh/ambit/local/internal/runtime/view"
	"github.com/ambit-mesh/ambit/local/internal/store"
	"github.com/ambit-mesh/ambit/local/internal/token"
)

func TestMain(m *testing.M) {
	switch {
	case view.Called(os.Args[0]):
		os.Exit(view.Main())
	case ptp.Called(os.Args[0]):
		if err := ptp.Main(); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	case len(os.Args) == 2 && os.Args[1] == "serve":
		serve()
	}
	netnstest.Main(m)
}

// serve is a program for pods: HTTP on 8080, healthy while /tmp/ill does not exist.
func serve() {
	err := http.ListenAndServe(":8080", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if _, err := os.Stat("/tmp/ill"); err == nil {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	_, _ = io.WriteString(os.Stderr, err.Error())
	os.Exit(1)
}

type cluster struct {
	t     *testing.T
	state string
	s     *store.Store
	keys  *token.Keys
	k     *kubelet.Kubelet
	net   *network.Network
	bin   string // how a pod calls this test binary
}

func start(t *testing.T) *cluster {
	t.Helper()
	netnstest.Need(t)
	state := t.TempDir()
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	s, err := store.Open(store.Config{Objects: filepath.Join(state, "objects"), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := token.Open(filepath.Join(state, "pki"))
	if err != nil {
		t.Fatal(err)
	}
	w, err := network.Build(network.Config{Nodes: []string{"n1"}})
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	n1, _ := w.Node("n1")
	c := &cluster{t: t, state: state, s: s, keys: keys, net: w, bin: filepath.Join(runtime.BinDir, filepath.Base(self))}
	c.k = kubelet.New(kubelet.Config{
		Node: n1, Cluster: kubelet.FromStore(s, keys), DNS: netip.MustParseAddr("10.96.0.10"), Logs: filepath.Join(state, "logs"),
		Runtime: runtime.New(runtime.Config{State: state, Bin: filepath.Dir(self), Self: self, Log: log}),
		Backoff: 50 * time.Millisecond, Log: log,
	})
	c.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}})
	c.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default", Namespace: "default"}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.k.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != context.Canceled {
			t.Errorf("the kubelet ended with %v", err)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		if err := unix.Unmount(filepath.Join(state, "nodes/n1/run"), unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return c
}

func (c *cluster) create(o kinds.Object) {
	c.t.Helper()
	if _, err := c.s.Create(o); err != nil {
		c.t.Fatal(err)
	}
}

// pod is one bound to the node, with one container.
func pod(name string, ctr corev1.Container) *corev1.Pod {
	ctr.Name = "main"
	if ctr.Image == "" {
		ctr.Image = "any"
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", Labels: map[string]string{"app": name}},
		Spec:       corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{ctr}},
	}
}

func ready(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func sh(script string) corev1.Container {
	return corev1.Container{Command: []string{"sh", "-c", script}}
}

func (c *cluster) log(p *corev1.Pod, o kubelet.LogOptions) string {
	c.t.Helper()
	var b bytes.Buffer
	o.Tail = -1
	if err := c.k.Logs(c.t.Context(), p, o, &b); err != nil {
		c.t.Fatal(err)
	}
	return b.String()
}

// in runs a script in the pod.
func (c *cluster) in(name, script string) (string, error) {
	c.t.Helper()
	ctr, err := c.k.Container("default", name, "")
	if err != nil {
		return "", err
	}
	r, w, err := os.Pipe()
	if err != nil {
		c.t.Fatal(err)
	}
	defer r.Close()
	cmd, err := ctr.Exec(runtime.Command{Argv: []string{"sh", "-c", script}, Files: []*os.File{nil, w, w}})
	_ = w.Close() // the program has its own
	if err != nil {
		return "", err
	}
	out, err := io.ReadAll(r)
	if err != nil {
		c.t.Fatal(err)
	}
	return string(out), cmd.Wait()
}

// await waits until the pod is as wanted, woken by every change.
func (c *cluster) await(name, what string, want func(*corev1.Pod) bool) *corev1.Pod {
	c.t.Helper()
	wake, stop := c.s.Subscribe()
	defer stop()
	deadline := time.After(20 * time.Second)
	var last *corev1.Pod
	for {
		p, err := store.Get[*corev1.Pod](c.s, "default", name)
		if err == nil && want(p) {
			return p
		}
		last = p
		select {
		case <-wake:
		case <-deadline:
			c.t.Fatalf("pod %s never became %s; its status: %+v", name, what, last)
		}
	}
}

func TestPodRunsWithItsEnvironmentAndVolumes(t *testing.T) {
	c := start(t)
	c.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "conf", Namespace: "default"}, Data: map[string]string{"color": "green"}})
	c.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "hush", Namespace: "default"}, Data: map[string][]byte{"word": []byte("sesame")}})
	c.create(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "my-db", Namespace: "default"}, Spec: corev1.ServiceSpec{
		ClusterIP: "10.96.0.77", Ports: []corev1.ServicePort{{Name: "sql", Port: 5432}},
	}})
	p := pod("web", corev1.Container{
		Command: []string{"sh", "-c"}, Args: []string{"echo '$(COLOR)-$(WORD) $(NAME) $(NONE) $$(COLOR)'; echo $IP $MY_DB_SERVICE_HOST; exec sleep 1000"},
		Env: []corev1.EnvVar{
			{Name: "COLOR", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "conf"}, Key: "color"}}},
			{Name: "WORD", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "hush"}, Key: "word"}}},
			{Name: "NAME", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels['app']"}}},
			{Name: "IP", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}},
		},
		VolumeMounts: []corev1.VolumeMount{
			{Name: "conf", MountPath: "/etc/config"},
			{Name: "tokens", MountPath: "/var/run/secrets/tokens"},
			{Name: "scratch", MountPath: "/data/here"},
			{Name: "conf", MountPath: "/opt/app/one", SubPath: "color"},
		},
	})
	ttl := int64(43200)
	p.Spec.Volumes = []corev1.Volume{
		{Name: "conf", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "conf"}}}},
		{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		{Name: "tokens", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "istio-token", Audience: "istio-ca", ExpirationSeconds: &ttl}},
		}}}},
	}
	c.create(p)
	got := c.await("web", "ready", ready)
	if got.Status.Phase != corev1.PodRunning || got.Status.PodIP != "10.244.1.2" || got.Status.HostIP != "10.89.0.11" {
		t.Errorf("phase %s, address %s, host %s", got.Status.Phase, got.Status.PodIP, got.Status.HostIP)
	}
	out, err := c.in("web", "cat /etc/config/color /opt/app/one; echo x > /data/here/x && cat /data/here/x; cat /var/run/secrets/kubernetes.io/serviceaccount/namespace; echo; grep search /etc/resolv.conf")
	if want := "greengreenx\ndefault\nsearch default.svc.cluster.local svc.cluster.local cluster.local\n"; err != nil || out != want {
		t.Errorf("in the pod %q (%v), want %q", out, err, want)
	}
	c.awaitLog(got, "green-sesame web $(NONE) $(COLOR)\n10.244.1.2 10.96.0.77\n")
	raw, err := c.in("web", "cat /var/run/secrets/tokens/istio-token")
	if err != nil {
		t.Fatal(err)
	}
	id, err := c.keys.Verify(raw, "istio-ca")
	if err != nil || id.Pod == nil || id.Pod.UID != string(got.UID) || id.Node == nil || id.Node.Name != "n1" || id.Subject() != "system:serviceaccount:default:default" {
		t.Errorf("the token speaks for %+v (%v)", id, err)
	}
	if _, err := store.Update(c.s, "default", "conf", func(m *corev1.ConfigMap) error { m.Data["color"] = "red"; return nil }); err != nil {
		t.Fatal(err)
	}
	if out, err := c.in("web", "n=0; until grep -q red /etc/config/color; do n=$((n+1)); [ $n -lt 200 ] || exit 1; sleep 0.05; done"); err != nil {
		t.Errorf("the changed config map does not show: %v %s", err, out)
	}
}

func TestReadinessAndLivenessFollowTheProgram(t *testing.T) {
	c := start(t)
	get := corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromString("http")}}
	c.create(pod("web", corev1.Container{
		Command: []string{c.bin, "serve"}, Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
		ReadinessProbe: &corev1.Probe{ProbeHandler: get, PeriodSeconds: 1, FailureThreshold: 1},
		LivenessProbe:  &corev1.Probe{ProbeHandler: get, PeriodSeconds: 1, FailureThreshold: 3},
	}))
	c.await("web", "ready", ready)
	if out, err := c.in("web", "touch /tmp/ill"); err != nil {
		t.Fatal(out, err)
	}
	c.await("web", "unready", func(p *corev1.Pod) bool { return !ready(p) && p.Status.ContainerStatuses[0].RestartCount == 0 })
	// The liveness probe restarts it; /tmp is the container's own, so it is well again.
	p := c.await("web", "ready after a restart", func(p *corev1.Pod) bool { return ready(p) && p.Status.ContainerStatuses[0].RestartCount == 1 })
	if last := p.Status.ContainerStatuses[0].LastTerminationState.Terminated; last == nil || !strings.HasPrefix(last.Message, "Liveness probe failed") {
		t.Errorf("last termination %+v", last)
	}
}

func TestCrashingContainerBacksOff(t *testing.T) {
	c := start(t)
	c.create(pod("bad", sh("echo I am run; exit 5")))
	p := c.await("bad", "backing off", func(p *corev1.Pod) bool {
		s := p.Status.ContainerStatuses
		return len(s) == 1 && s[0].State.Waiting != nil && s[0].State.Waiting.Reason == "CrashLoopBackOff" && s[0].RestartCount > 0
	})
	if e := p.Status.ContainerStatuses[0].LastTerminationState.Terminated; e == nil || e.ExitCode != 5 || e.Reason != "Error" {
		t.Errorf("last termination %+v, want exit code 5", e)
	}
	if got := c.log(p, kubelet.LogOptions{Previous: true}); got != "I am run\n" {
		t.Errorf("log of the run before %q", got)
	}
}

func TestUnknownImageIsNamed(t *testing.T) {
	c := start(t)
	c.create(pod("nginx", corev1.Container{Image: "nginx"}))
	c.await("nginx", "waiting for an image", func(p *corev1.Pod) bool {
		s := p.Status.ContainerStatuses
		return len(s) == 1 && s[0].State.Waiting != nil && s[0].State.Waiting.Reason == "ErrImageNotAvailable" && strings.Contains(s[0].State.Waiting.Message, "command")
	})
}

func TestInitContainersRunInOrderAndJobsEnd(t *testing.T) {
	c := start(t)
	p := pod("job", sh("cat /work/log; exit 0"))
	p.Spec.RestartPolicy = corev1.RestartPolicyNever
	p.Spec.Volumes = []corev1.Volume{{Name: "work", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	mount := []corev1.VolumeMount{{Name: "work", MountPath: "/work"}}
	p.Spec.Containers[0].VolumeMounts = mount
	for _, name := range []string{"one", "two"} {
		i := sh("sleep 0.1; echo " + name + " >> /work/log")
		i.Name, i.Image, i.VolumeMounts = name, "any", mount
		p.Spec.InitContainers = append(p.Spec.InitContainers, i)
	}
	c.create(p)
	got := c.await("job", "succeeded", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodSucceeded })
	if log := c.log(got, kubelet.LogOptions{}); log != "one\ntwo\n" {
		t.Errorf("the job saw %q", log)
	}
}

func TestDeletedPodEndsInOrderAndLeavesNothing(t *testing.T) {
	c := start(t)
	c.create(pod("web", sh(`trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.02; done`)))
	p := c.await("web", "ready", ready)
	follow := make(chan string, 1)
	r, w := net.Pipe()
	go func() {
		o := kubelet.LogOptions{}
		o.Tail, o.Follow = -1, true
		_ = c.k.Logs(context.Background(), p, o, w) // its end is what is looked at
		_ = w.Close()
	}()
	first := make([]byte, 3)
	if _, err := io.ReadFull(r, first); err != nil || string(first) != "up\n" {
		t.Fatalf("log begins with %q, %v", first, err)
	}
	go func() {
		b, _ := io.ReadAll(r)
		follow <- string(b)
	}()
	if err := c.s.Delete(store.KindFor[*corev1.Pod](), "default", "web", store.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	wake, stop := c.s.Subscribe()
	defer stop()
	deadline := time.After(20 * time.Second)
	for len(store.List[*corev1.Pod](c.s, "default")) > 0 {
		select {
		case <-wake:
		case <-deadline:
			t.Fatal("the pod is never removed")
		}
	}
	if got := <-follow; got != "bye\n" {
		t.Errorf("the log ends with %q, want bye", got)
	}
	for _, dir := range []string{"pods", "nodes/n1/run/netns", "logs"} {
		left, err := os.ReadDir(filepath.Join(c.state, dir))
		if err != nil || len(left) > 0 {
			t.Errorf("%s holds %v (%v)", dir, left, err)
		}
	}
	c.create(pod("web", sh("exec sleep 1000")))
	if again := c.await("web", "ready", ready); again.Status.PodIP == p.Status.PodIP {
		t.Errorf("the new pod has the address of the old one, %s", p.Status.PodIP)
	}
}
