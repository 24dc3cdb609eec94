package control_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/control"
	"github.com/ambit-mesh/ambit/control/source"
	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/identity/certs"
	"github.com/ambit-mesh/ambit/internal/testkit/memnet"
	"github.com/ambit-mesh/ambit/mesh"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is a cluster in memory: objects, and what the control plane writes of them and of their status.
type memory struct {
	store *source.Store

	mu     sync.Mutex // guards below
	all    map[string]kinds.Object
	status map[string]kinds.Object
	writes int // of status

	twin *memory // another view of the same cluster, for another control plane; nil for none
}

// doubled is another view of the cluster: what is written to one is seen in both.
func (m *memory) doubled() *memory {
	m.twin = m.again()
	m.twin.twin = m
	return m.twin
}

func ref(r source.Ref) string { return r.Kind.Resource() + "/" + r.Key }

func newMemory(t testing.TB, text string) *memory {
	m := &memory{store: source.NewStore(), all: map[string]kinds.Object{}, status: map[string]kinds.Object{}}
	m.put(t, text)
	return m
}

// again is the same cluster as a control plane that starts finds it.
func (m *memory) again() *memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := &memory{store: source.NewStore(), all: maps.Clone(m.all), status: maps.Clone(m.status)}
	n.store.Apply(slices.Collect(maps.Values(n.all)), nil)
	return n
}

func (m *memory) put(t testing.TB, text string) {
	t.Helper()
	found, err := kinds.Decode("test", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var all []kinds.Object
	for _, l := range found {
		all = append(all, l.Object)
	}
	m.write(all...)
}

func (m *memory) write(all ...kinds.Object) {
	m.apply(all)
	if m.twin != nil {
		m.twin.apply(all)
	}
}

func (m *memory) apply(all []kinds.Object) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, o := range all {
		m.all[ref(source.RefOf(o))] = o
	}
	m.store.Apply(all, nil)
}

func (m *memory) Run(ctx context.Context) error {
	m.store.MarkSynced()
	<-ctx.Done()
	return nil
}

func (m *memory) Store() *source.Store { return m.store }

func (m *memory) Apply(_ context.Context, o kinds.Object) error { m.write(o); return nil }

func (m *memory) Create(ctx context.Context, o kinds.Object) error {
	m.mu.Lock()
	_, there := m.all[ref(source.RefOf(o))]
	m.mu.Unlock()
	if there {
		return os.ErrExist
	}
	return m.Apply(ctx, o)
}

func (m *memory) Delete(_ context.Context, k kinds.Kind, namespace, name string) error {
	r := source.Ref{Kind: k, Key: source.Key(namespace, name)}
	m.drop(r)
	if m.twin != nil {
		m.twin.drop(r)
	}
	return nil
}

func (m *memory) drop(r source.Ref) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.all, ref(r))
	m.store.Apply(nil, []source.Ref{r})
}

func (m *memory) Read(_ context.Context, k kinds.Kind, namespace, name string) (kinds.Object, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.all[ref(source.Ref{Kind: k, Key: source.Key(namespace, name)})], nil
}

// roots is what a namespace's pods are given to trust.
func (m *memory) roots(namespace string) string {
	c, _ := m.store.Objects.ConfigMaps.Get(namespace + "/" + mesh.RootConfigMap)
	if c == nil {
		return ""
	}
	return c.Data[mesh.RootConfigKey]
}

// statuses takes the status of objects.
type statuses struct{ *memory }

func (s statuses) Apply(_ context.Context, o kinds.Object) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status[ref(source.RefOf(o))] = o
	s.writes++
	return nil
}

func (s statuses) Delete(_ context.Context, k kinds.Kind, namespace, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.status, ref(source.Ref{Kind: k, Key: source.Key(namespace, name)}))
	return nil
}

func (s statuses) Read(_ context.Context, k kinds.Kind, namespace, name string) (kinds.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status[ref(source.Ref{Kind: k, Key: source.Key(namespace, name)})], nil
}

// tokens are callers by what they say.
type tokens map[string]source.Caller

func (f tokens) Verify(_ context.Context, token string) (source.Caller, error) {
	if c, ok := f[token]; ok {
		return c, nil
	}
	return source.Caller{}, errors.New("unknown token")
}

// callers of the cluster in control_test.go.
func callers() tokens {
	return tokens{
		"z1":  {Namespace: "istio-system", ServiceAccount: "ztunnel", Pod: "ztunnel-1", PodUID: "z1", Node: "node-1"},
		"z2":  {Namespace: "istio-system", ServiceAccount: "ztunnel", Pod: "ztunnel-2", PodUID: "z2", Node: "node-2"},
		"web": {Namespace: "default", ServiceAccount: "web", Pod: "web-1", PodUID: "w1", Node: "node-1"},
	}
}

// virtual is a control plane over memory, for use in a bubble of virtual time.
type virtual struct {
	t       testing.TB
	cluster *memory
	xds     *memnet.Listener
	monitor *memnet.Listener
	stop    func()
}

func startVirtual(t testing.TB, m *memory, change func(*control.Config)) *virtual {
	t.Helper()
	v := &virtual{t: t, cluster: m, xds: memnet.Listen("10.0.0.1:15012"), monitor: memnet.Listen("10.0.0.1:15014")}
	conf := control.Config{
		Objects: m, Writer: m, Status: statuses{m}, Callers: callers(), Log: slog.New(slog.DiscardHandler),
		XDS: v.xds, Monitor: v.monitor, Ready: memnet.Listen("10.0.0.1:8080"),
	}
	if change != nil {
		change(&conf)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	plane := control.New(conf)
	go func() { done <- plane.Run(ctx) }()
	v.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(v.stop)
	return v
}

// authority is a client of the CA that trusts what namespace's ConfigMap says.
func (v *virtual) authority(token string, impersonate bool) *certs.CA {
	return &certs.CA{
		Address: "passthrough:istiod", ClusterID: mesh.ClusterID, Impersonate: impersonate,
		Token: func() (string, error) { return token, nil },
		TLS: func() (*tls.Config, error) {
			pool := x509.NewCertPool()
			pool.AppendCertsFromPEM([]byte(v.cluster.roots("istio-system")))
			return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool, ServerName: mesh.IstiodHost}, nil
		},
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return v.xds.Dial(ctx) })},
	}
}

func secretOf(m *memory, name string) *corev1.Secret {
	s, _ := m.store.Objects.Secrets.Get("istio-system/" + name)
	return s
}

func workloadID(account string) identity.ID { return id("default", account) }
