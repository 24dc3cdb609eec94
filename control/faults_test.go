package control_test

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/api/authorization"
	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/control"
	"github.com/ambit-mesh/ambit/control/source/files"
	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/xds/delta"
)

// F1, FT-01, XD-09: the control plane is away for 14 hours, at the worst moment, and no handshake between known pods
// fails; it comes back, and in seconds everything is renewed, nothing was withdrawn and nothing unchanged is sent.
func TestF1AwayForHours(t *testing.T) {
	for _, c := range []struct {
		name string
		ttl  time.Duration
		away time.Duration
	}{{"14 h with certificates of a day", 24 * time.Hour, 14 * time.Hour}, {"29 h with certificates of two days", 48 * time.Hour, 29 * time.Hour}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := startVirtual(t, newMemory(t, cluster), nil)
				synctest.Wait()
				web, other := workloadID("web"), id("istio-system", "ztunnel")
				one, two := v.proxyFor(web, c.ttl), v.proxyFor(other, c.ttl)
				defer func() { one.stop(); two.stop() }()
				synctest.Wait() // both have their first certificates
				shakes := func(what string) {
					t.Helper()
					if err := cmp.Or(handshake(t.Context(), one, two, web, other), handshake(t.Context(), two, one, other, web)); err != nil {
						t.Fatalf("%s: %v", what, err)
					}
				}
				shakes("at first")
				s := v.subscribe("z1", ztunnelNode)
				s.settle()
				had := s.held
				s.end()
				time.Sleep(c.ttl/3 - c.ttl/20 - time.Minute) // just before the earliest renewal
				v.stop()
				down := time.Now()
				for time.Since(down) < c.away {
					time.Sleep(10 * time.Minute)
					shakes(fmt.Sprint("away for ", time.Since(down)))
				}
				before := one.certs.Entries()[0].Chain[0].SerialNumber
				back := startVirtual(t, v.cluster.again(), nil)
				*v = *back
				synctest.Wait()
				s = v.subscribe("z1", ztunnelNode, had)
				s.settle()
				if n := len(s.sent[mesh.TypeAddress]) + len(s.gone[mesh.TypeAddress]) + len(s.sent[mesh.TypeAuthorization]) + len(s.gone[mesh.TypeAuthorization]); n != 0 {
					t.Errorf("%d resources were sent or withdrawn although nothing changed", n)
				}
				if n := s.bytes[mesh.TypeAddress] + s.bytes[mesh.TypeAuthorization]; n > 200 {
					t.Errorf("%d bytes to say that nothing changed", n)
				}
				s.end()
				begin := time.Now()
				for one.certs.Entries()[0].Chain[0].SerialNumber.Cmp(before) == 0 {
					time.Sleep(time.Second)
					if time.Since(begin) > 3*time.Minute {
						t.Fatal("not renewed")
					}
				}
				t.Logf("renewed %v after the control plane was back", time.Since(begin))
				shakes("at the end")
			})
		})
	}
}

// Restarts back to back send nothing twice and withdraw nothing.
func TestRestartsBackToBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := startVirtual(t, newMemory(t, cluster+"---\n"+denying(1, "bad")), nil)
		synctest.Wait()
		s := v.subscribe("z1", ztunnelNode)
		s.settle()
		had := s.held
		s.end()
		for i := range 10 {
			v.stop()
			v = startVirtual(t, v.cluster.again(), nil)
			synctest.Wait()
			s = v.subscribe("z1", ztunnelNode, had)
			s.settle()
			if len(s.sent[mesh.TypeAddress])+len(s.sent[mesh.TypeAuthorization])+len(s.gone[mesh.TypeAddress])+len(s.gone[mesh.TypeAuthorization]) != 0 {
				t.Errorf("restart %d: sent %v, withdrew %v", i, s.sent, s.gone)
			}
			s.end()
		}
	})
}

// Several control planes that read the same files serve the same, in the same versions: a proxy may go from one to another.
func TestSeveralControlPlanesServeTheSame(t *testing.T) {
	dir := t.TempDir()
	text := cluster + "---\n" + denying(1, "bad") + "---\n" + entryOf("one", "one.example", "") + "---\n" + entryOf("two", "two.example", "")
	p := &plane{t: t, dir: dir}
	for i, doc := range strings.Split(text, "---\n") {
		p.write(fmt.Sprintf("%d.yaml", i), doc)
	}
	var held []map[string]map[string]string
	for i := range 3 {
		src, err := files.Open(files.Config{Dir: filepath.Join(dir, "objects"), Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		v := startVirtual(t, newMemory(t, ""), func(c *control.Config) {
			c.Objects, c.Writer = src, files.NewWriter(filepath.Join(dir, "objects"))
			c.Status = files.NewWriter(filepath.Join(dir, "status"))
		})
		v.cluster.store = src.Store()
		eventually(t, func() bool { return v.cluster.roots("istio-system") != "" })
		s := v.subscribe("z1", ztunnelNode)
		eventually(t, func() bool {
			return len(s.names(mesh.TypeAddress)) >= 4 && len(s.names(mesh.TypeAuthorization)) == 2
		})
		s.end()
		held = append(held, s.held)
		for url, versions := range held[0] {
			if !maps.Equal(versions, s.held[url]) {
				t.Errorf("control plane %d serves %v, the first %v", i, s.held[url], versions)
			}
		}
	}
}

// F16, FT-16: a thousand pods come and go ten times. Nobody is told of one that is gone for more than 2 s, and nothing is
// left of them.
func TestF16Churn(t *testing.T) {
	const pods, rounds = 1000, 10
	v := startVirtual(t, newMemory(t, cluster+"---\napiVersion: v1\nkind: Service\nmetadata: {name: all, namespace: ns0}\nspec: {clusterIP: 10.96.1.1, selector: {app: a0}, ports: [{port: 80}]}\n"), nil)
	eventually(t, func() bool { return v.cluster.roots("istio-system") != "" })
	s := v.subscribe("z1", ztunnelNode)
	defer s.end()
	settled := func(n int) time.Duration {
		t.Helper()
		begin := time.Now()
		eventually(t, func() bool { return len(s.names(mesh.TypeAddress)) == n })
		return time.Since(begin)
	}
	settled(5)
	all := make([]kinds.Object, pods)
	k, _ := kinds.Find("pod")
	var slowest time.Duration
	var after []uint64
	for round := range rounds {
		for i := range all {
			all[i] = pod(fmt.Sprintf("r%d-p%d", round, i), i)
		}
		for batch := range slices.Chunk(all, 50) {
			v.cluster.write(batch...)
		}
		slowest = max(slowest, settled(5+pods))
		for _, o := range all {
			if err := v.cluster.Delete(t.Context(), k, o.GetNamespace(), o.GetName()); err != nil {
				t.Fatal(err)
			}
		}
		slowest = max(slowest, settled(5))
		s.reset()
		clear(all)
		after = append(after, heap())
		all = make([]kinds.Object, pods)
	}
	t.Logf("at most %v until all were told; heap after each round %v KiB", slowest, kib(after))
	if slowest > 2*time.Second {
		t.Errorf("a stale endpoint was known for %v", slowest)
	}
	if first, last := after[1], after[rounds-1]; float64(last) > float64(first)*1.05+256<<10 {
		t.Errorf("heap grew from %d to %d KiB", first>>10, last>>10)
	}
}

func kib(all []uint64) (out []uint64) {
	for _, n := range all {
		out = append(out, n>>10)
	}
	return out
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// pod is a captured pod of its own address.
func pod(name string, i int) kinds.Object {
	return &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: "ns0", UID: types.UID("u-" + name), Labels: map[string]string{"app": "a0", "pod-template-hash": "x"},
			Annotations: map[string]string{mesh.AnnotationRedirection: mesh.RedirectionEnabled},
		},
		Spec: corev1.PodSpec{NodeName: fmt.Sprint("n", i%100), ServiceAccountName: fmt.Sprint("sa", i%20), Containers: []corev1.Container{{Name: "c", Image: "a"}}},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: fmt.Sprintf("10.1.%d.%d", i>>8, i&255),
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		},
	}
}

// F21, FT-21: 500 changes of a policy, 50 proxies that take their time. A second after a change no proxy decides by an older
// one, none ever goes back, and none is told of a workload that names a policy which it does not have yet.
func TestF21PolicyHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const proxies, changes = 50, 500
		// The streams of one pod are bounded, so half of the proxies are another node's.
		v := startVirtual(t, newMemory(t, cluster+`---
apiVersion: v1
kind: Pod
metadata: {name: ztunnel-2, namespace: istio-system, uid: z2}
spec: {nodeName: node-2, serviceAccountName: ztunnel, containers: [{name: a, image: a}]}
status: {phase: Running, podIP: 10.244.2.2, podIPs: [{ip: 10.244.2.2}]}
`), nil)
		synctest.Wait()
		type seen struct {
			at      time.Time
			version int
		}
		var mu sync.Mutex
		histories := make([][]seen, proxies)
		for i := range proxies {
			random := rand.New(rand.NewPCG(1, uint64(i)))
			has := map[string]bool{}
			s := v.subscribeWith(&subscriber{
				slow: func() { time.Sleep(time.Duration(random.IntN(400)) * time.Millisecond) },
				heard: func(r *delta.Response) {
					mu.Lock()
					defer mu.Unlock()
					for _, x := range r.GetResources() {
						switch r.GetTypeUrl() {
						case mesh.TypeAuthorization:
							has[x.GetName()] = true
							if n, ok := generation(t, x.GetResource().GetValue()); ok {
								histories[i] = append(histories[i], seen{time.Now(), n})
							}
						case mesh.TypeAddress:
							a := &workload.Address{}
							if err := proto.Unmarshal(x.GetResource().GetValue(), a); err != nil {
								t.Error(err)
							}
							for _, p := range a.GetWorkload().GetAuthorizationPolicies() {
								if !has[p] {
									t.Errorf("proxy %d is told of %s, which names %s, before that policy", i, x.GetName(), p)
								}
							}
						}
					}
				},
			}, fmt.Sprint("z", 1+i%2), strings.ReplaceAll(ztunnelNode, "ztunnel-1", fmt.Sprint("ztunnel-", 1+i%2)))
			defer s.end()
		}
		synctest.Wait()
		random := rand.New(rand.NewPCG(2, 2))
		when := make([]time.Time, changes)
		for n := range changes {
			v.cluster.put(t, denying(n, fmt.Sprint("n", n)))
			when[n] = time.Now()
			time.Sleep(time.Duration(random.IntN(200)) * time.Millisecond)
		}
		time.Sleep(5 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		var delays []time.Duration
		for i, h := range histories {
			last := -1
			for _, s := range h {
				if s.version < last {
					t.Errorf("proxy %d went back from %d to %d", i, last, s.version)
				}
				last = s.version
			}
			if last != changes-1 {
				t.Errorf("proxy %d ends with %d", i, last)
			}
			for n, at := range when {
				j := slices.IndexFunc(h, func(s seen) bool { return s.version >= n })
				if j < 0 {
					continue
				}
				delays = append(delays, h[j].at.Sub(at))
			}
		}
		slices.Sort(delays)
		median, worst := delays[len(delays)/2], delays[len(delays)-1]
		t.Logf("%d verdicts: a change is known after %v in the median, %v at worst", len(delays), median, worst)
		if worst > time.Second || median > 200*time.Millisecond {
			t.Error("too late")
		}
	})
}

// generation reads which change of the policy this is.
func generation(t *testing.T, raw []byte) (n int, ok bool) {
	a := &authorization.Authorization{}
	if err := proto.Unmarshal(raw, a); err != nil {
		t.Error(err)
		return 0, false
	}
	if a.GetName() != "no" {
		return 0, false
	}
	_, err := fmt.Sscanf(a.GetRules()[0].GetClauses()[0].GetMatches()[0].GetNamespaces()[0].GetExact(), "n%d", &n)
	return n, err == nil
}

// RS-13, the pushing side: a thousand pods change each second, and each change is known within a second.
func TestRS13Updates(t *testing.T) {
	const pods, rate, seconds = 1000, 1000, 2
	v := startVirtual(t, newMemory(t, cluster), nil)
	eventually(t, func() bool { return v.cluster.roots("istio-system") != "" })
	for i := range pods {
		v.cluster.write(pod(fmt.Sprint("p", i), i))
	}
	var mu sync.Mutex
	changed := map[string]time.Time{}
	var delays []time.Duration
	s := v.subscribeWith(&subscriber{heard: func(r *delta.Response) {
		mu.Lock()
		defer mu.Unlock()
		for _, x := range r.GetResources() {
			if at, ok := changed[x.GetName()]; ok {
				delays = append(delays, time.Since(at))
				delete(changed, x.GetName())
			}
		}
	}}, "z1", ztunnelNode)
	defer s.end()
	eventually(t, func() bool { return len(s.names(mesh.TypeAddress)) == pods+4 })
	versions := [2][]kinds.Object{}
	for i := range pods {
		a, b := pod(fmt.Sprint("p", i), i), pod(fmt.Sprint("p", i), i+pods)
		versions[0], versions[1] = append(versions[0], a), append(versions[1], b)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	n := 0
	for n < rate*seconds {
		<-tick.C
		for range rate / 100 {
			o := versions[(n/pods+1)%2][n%pods]
			mu.Lock()
			if key := "Kubernetes//Pod/ns0/" + o.GetName(); changed[key].IsZero() {
				changed[key] = time.Now()
			}
			mu.Unlock()
			v.cluster.write(o)
			n++
		}
	}
	eventually(t, func() bool { mu.Lock(); defer mu.Unlock(); return len(changed) == 0 })
	slices.Sort(delays)
	p99 := delays[len(delays)*99/100]
	t.Logf("%d changes in %d s: known after %v in the median, %v at the 99th percentile", n, seconds, delays[len(delays)/2], p99)
	if p99 > time.Second {
		t.Errorf("99 %% of changes are known after %v", p99)
	}
}

// Only what changed is sent, whatever else there is.
func TestOnlyWhatChangedIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := startVirtual(t, newMemory(t, cluster), nil)
		for i := range 500 {
			v.cluster.write(pod(fmt.Sprint("p", i), i))
		}
		synctest.Wait()
		s := v.subscribe("z1", ztunnelNode)
		defer s.end()
		s.settle()
		whole := s.bytes[mesh.TypeAddress]
		s.reset()
		v.cluster.write(pod("p7", 2000)) // another address
		s.settle()
		if got := s.sent[mesh.TypeAddress]; len(got) != 1 || got[0] != "Kubernetes//Pod/ns0/p7" || s.bytes[mesh.TypeAddress] > 600 {
			t.Errorf("sent %v, %d bytes", got, s.bytes[mesh.TypeAddress])
		}
		s.reset()
		v.cluster.write(pod("p7", 2000)) // the same again
		v.cluster.put(t, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, namespace: default}\ndata: {a: b}\n")
		s.settle()
		if len(s.order) != 0 {
			t.Errorf("nothing changed for proxies, and they were sent %v", s.order)
		}
		t.Logf("504 resources are %d bytes", whole)
	})
}
