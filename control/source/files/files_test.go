package files

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/collection"
	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// rig is a source that runs on a real directory, and the events that it gives.
type rig struct {
	t      *testing.T
	dir    string
	source *Source
	events chan []collection.Event[*corev1.Service]
}

func start(t *testing.T, files map[string]string) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), events: make(chan []collection.Event[*corev1.Service], 100)}
	for name, text := range files {
		r.write(name, text)
	}
	s, err := Open(Config{Dir: r.dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	r.source = s
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && ctx.Err() == nil {
			t.Errorf("Run: %v", err)
		}
	})
	<-s.Store().Objects.Services.Synced()
	stop := s.Store().Objects.Services.Watch(func(es []collection.Event[*corev1.Service]) {
		if len(es) > 0 {
			r.events <- es
		}
	})
	t.Cleanup(stop)
	return r
}

func (r *rig) write(name, text string) {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		r.t.Fatal(err)
	}
	if err := put(path, []byte(text), os.Rename); err != nil {
		r.t.Fatal(err)
	}
}

// until waits until the collection of Services is as wanted: "namespace/name=app".
func (r *rig) until(want ...string) {
	r.t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		if got := r.services(); got == strings.Join(want, " ") {
			return
		}
		select {
		case <-r.events:
		case <-deadline:
			r.t.Fatalf("services are %q, want %q; problems %v", r.services(), want, r.source.Refused())
		}
	}
}

func (r *rig) services() string {
	var out []string
	for key, s := range r.source.Store().Objects.Services.All() {
		out = append(out, key+"="+s.Spec.Selector["app"])
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// refused waits until exactly these files are refused, each for a reason with the text.
func (r *rig) refused(want map[string]string) {
	r.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		got := r.source.Refused()
		ok := len(got) == len(want)
		for _, p := range got {
			ok = ok && want[p.File] != "" && strings.Contains(p.Err.Error(), want[p.File])
		}
		if ok {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("refused %v, want %v", got, want)
		}
		time.Sleep(5 * time.Millisecond) // refusals are polled: there is no event for a file that changes nothing
	}
}

func service(ns, name, app string) string {
	return "apiVersion: v1\nkind: Service\nmetadata: {name: " + name + ", namespace: " + ns + "}\nspec: {selector: {app: " + app + "}, ports: [{port: 80}]}\n"
}

func TestFilesAreFollowed(t *testing.T) {
	r := start(t, map[string]string{"a/services/web.yaml": service("a", "web", "one"), "notes.txt": "no: [yaml"})
	r.until("a/web=one")
	r.write("a/services/web.yaml", service("a", "web", "two"))
	r.until("a/web=two")
	r.write("deep/er/new/more.yaml", service("b", "x", "x")+"---\n"+service("b", "y", "y"))
	r.until("a/web=two", "b/x=x", "b/y=y")
	r.write("deep/er/new/more.yaml", service("b", "y", "y"))
	r.until("a/web=two", "b/y=y")
	if err := os.RemoveAll(filepath.Join(r.dir, "deep")); err != nil {
		t.Fatal(err)
	}
	r.until("a/web=two")
	r.refused(nil)
}

func TestABrokenFileKeepsWhatItSaid(t *testing.T) {
	r := start(t, map[string]string{"web.yaml": service("a", "web", "one")})
	r.until("a/web=one")
	r.write("web.yaml", strings.Replace(service("a", "web", "two"), "ports", "prots", 1))
	r.refused(map[string]string{"web.yaml": `web.yaml:4: spec: unknown field "prots"; did you mean "ports"?`})
	r.until("a/web=one")
	r.write("other.yaml", service("a", "other", "o")) // the rest goes on
	r.until("a/other=o", "a/web=one")
	r.write("web.yaml", service("a", "web", "three"))
	r.until("a/other=o", "a/web=three")
	r.refused(nil)
	r.write("web.yaml", "nonsense: [")
	r.refused(map[string]string{"web.yaml": "is not YAML"})
	if err := os.Remove(filepath.Join(r.dir, "web.yaml")); err != nil {
		t.Fatal(err)
	}
	r.until("a/other=o")
	r.refused(nil)
}

func TestAnObjectHasOneFile(t *testing.T) {
	r := start(t, map[string]string{"1.yaml": service("a", "web", "one"), "2.yaml": service("a", "web", "two") + "---\n" + service("a", "more", "m")})
	r.until("a/web=one")
	r.refused(map[string]string{"2.yaml": "2.yaml:1: Service a/web is already in 1.yaml:1; remove one of them"})
	if err := os.Remove(filepath.Join(r.dir, "1.yaml")); err != nil {
		t.Fatal(err)
	}
	r.until("a/more=m", "a/web=two") // the second file's turn
	r.refused(nil)
}

func TestMeaningIsChecked(t *testing.T) {
	r := start(t, map[string]string{"vs.yaml": "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v}\nspec:\n  gateways: [g]\n  http:\n  - route: [{destination: {host: a}}]\n"})
	r.refused(map[string]string{"vs.yaml": "vs.yaml:5: spec: VirtualService has no hosts; say in spec.hosts"})
}

func TestWhatIsWrittenIsReadByItsOwnerOnly(t *testing.T) {
	r := start(t, nil)
	w := NewWriter(r.dir)
	svc := &corev1.Service{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "a"},
		Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "w"}},
	}
	if err := w.Apply(t.Context(), svc); err != nil {
		t.Fatal(err)
	}
	r.until("a/web=w")
	info, err := os.Stat(filepath.Join(r.dir, "a/services/web.yaml"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("file %v %v, want mode 0600", info, err)
	}
	svc.Name = "../../web"
	if err := w.Apply(t.Context(), svc); err == nil {
		t.Error("a name that leaves the directory is written")
	}
	k, _ := kinds.Find("service")
	if err := w.Delete(t.Context(), k, "a", "web"); err != nil {
		t.Fatal(err)
	}
	r.until()
}
