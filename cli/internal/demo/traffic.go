package demo

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/local/client"
	"github.com/ambit-mesh/ambit/mesh"
)

const (
	title     = "<title>Simple Bookstore App</title>"
	shop      = "http://productpage:9080/"
	enrollMax = 15 * time.Second
)

func indent(r io.Reader, by string) string {
	var b strings.Builder
	for in := bufio.NewScanner(io.LimitReader(r, 1<<20)); in.Scan(); {
		b.WriteString(by + in.Text() + "\n")
	}
	return b.String()
}

// titleIn finds the line that proves the page.
func titleIn(page string) (string, error) {
	for line := range strings.Lines(page) {
		if strings.Contains(line, title) {
			return strings.TrimSpace(line), nil
		}
	}
	return "", fmt.Errorf("the answer lacks %s: %.200q", title, page)
}

// browse asks the ingress gateway from this machine.
func (w *Walk) browse(ctx context.Context, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.Ingress+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := w.web.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s answered %s: %.200q", w.Ingress+path, resp.Status, b)
	}
	return string(b), nil
}

// curl asks from a pod.
func (w *Walk) curl(ctx context.Context, namespace, from, url string) (string, int, error) {
	return w.Exec(ctx, namespace, from, "curl", "-s", "-S", "--max-time", "5", url)
}

// page asks a pod for the product page and proves the title.
func (w *Walk) page(ctx context.Context, from string) (string, error) {
	out, code, err := w.curl(ctx, "default", from, shop)
	if err != nil {
		return "", err
	}
	if code != 0 {
		return "", fmt.Errorf("curl in %s ended with %d: %s", from, code, out)
	}
	return titleIn(out)
}

// eventually tries until it holds: gateways and nodes need a moment to learn of new routes and services.
func eventually(ctx context.Context, limit time.Duration, f func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := f()
		if err == nil || time.Now().After(deadline) || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// ask requests the page in the three ways of the walk-through.
func (w *Walk) ask(ctx context.Context) error {
	w.ui.command("curl -s " + w.Ingress + "/productpage | grep title")
	var line string
	err := eventually(ctx, 10*time.Second, func() error {
		page, err := w.browse(ctx, "/productpage")
		if err != nil {
			return err
		}
		line, err = titleIn(page)
		return err
	})
	if err != nil {
		return err
	}
	w.ui.proof(line)
	for _, from := range []string{"sleep", "notsleep"} {
		w.ui.command("ambit local exec deploy/" + from + " -- curl -s " + shop + " | grep title")
		// Nodes need a moment as well, until each leads to the endpoints of new services.
		err := eventually(ctx, 5*time.Second, func() error {
			line, err = w.page(ctx, from)
			return err
		})
		if err != nil {
			return err
		}
		w.ui.proof(line)
	}
	return nil
}

// before is step c. The wire is read meanwhile, to be compared in step e.
func (w *Walk) before(ctx context.Context) error {
	var err error
	w.clear, err = w.listen(ctx, w.ask)
	return err
}

// pods are those of the default namespace.
func (w *Walk) pods(ctx context.Context) ([]*corev1.Pod, error) {
	objects, err := w.API.List(ctx, kindOf("pods"), "default", "")
	if err != nil {
		return nil, err
	}
	var pods []*corev1.Pod
	for _, o := range objects {
		if p, ok := o.(*corev1.Pod); ok {
			pods = append(pods, p)
		}
	}
	return pods, nil
}

// life of a pod: the same before and after means that nothing restarted.
func life(p *corev1.Pod) string {
	s := string(p.UID)
	for _, c := range p.Status.ContainerStatuses {
		s += fmt.Sprintf(" %s:%d", c.ContainerID, c.RestartCount)
	}
	return s
}

// enroll is step d.
func (w *Walk) enroll(ctx context.Context) error {
	earlier, err := w.pods(ctx)
	if err != nil {
		return err
	}
	w.ui.command("ambit local label namespace default istio.io/dataplane-mode=ambient")
	start := time.Now()
	patch := map[string]any{"metadata": map[string]any{"labels": map[string]any{mesh.LabelDataplaneMode: mesh.DataplaneModeAmbient}}}
	if _, err := w.API.Patch(ctx, kindOf("namespaces"), "", "default", patch); err != nil {
		return err
	}
	w.ui.wait("Waiting for capture")
	defer w.ui.wait("")
	var now []*corev1.Pod
	err = eventually(ctx, enrollMax, func() error {
		if now, err = w.pods(ctx); err != nil {
			return err
		}
		for _, p := range now {
			if p.Annotations[mesh.AnnotationRedirection] != mesh.RedirectionEnabled {
				return fmt.Errorf("pod %s is not captured after %v", p.Name, enrollMax)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	w.ui.wait("")
	took := time.Since(start)
	lives := map[string]string{}
	for _, p := range earlier {
		lives[p.Name] = life(p)
	}
	for _, p := range now {
		if lives[p.Name] != life(p) {
			return fmt.Errorf("pod %s restarted: %q, before %q", p.Name, life(p), lives[p.Name])
		}
	}
	w.ui.done("%d running pods captured in %d ms, none restarted", len(now), took.Milliseconds())
	if err := w.known(ctx); err != nil {
		return err
	}
	return w.tenRequests(ctx)
}

// tenRequests asks from notsleep and shows what both ztunnels say of it.
func (w *Walk) tenRequests(ctx context.Context) error {
	w.ui.command("for i in $(seq 10); do ambit local exec deploy/notsleep -- curl -s " + shop + "; done")
	// The first waits until every proxy knows of the capture, as any client would see it: by trying again.
	err := eventually(ctx, 10*time.Second, func() error {
		for range 10 {
			if _, err := w.page(ctx, "notsleep"); err != nil {
				return err
			}
		}
		_, err := w.ztunnelLine(ctx, "got CONNECT request to", "peer_id=spiffe://cluster.local/ns/default/sa/notsleep")
		return err
	})
	if err != nil {
		return err
	}
	w.ui.command("ambit local logs -n istio-system -l app=ztunnel")
	for _, want := range [][]string{
		{"got CONNECT request to", ":9080", "peer_ip", "peer_id=spiffe://cluster.local/ns/default/sa/notsleep"},
		{"proxy to", ":9080 using HBONE via", ":15008 type Direct"},
	} {
		line, err := w.ztunnelLine(ctx, want...)
		if err != nil {
			return err
		}
		w.ui.proof(line)
	}
	return nil
}

// ztunnelLine finds the newest line of any ztunnel that has every word.
func (w *Walk) ztunnelLine(ctx context.Context, words ...string) (string, error) {
	pods, err := w.API.List(ctx, kindOf("pods"), mesh.SystemNamespace, "app=ztunnel")
	if err != nil {
		return "", err
	}
	var last string
	for _, p := range pods {
		text, err := w.log(ctx, mesh.SystemNamespace, p.GetName())
		if err != nil {
			return "", err
		}
		for line := range strings.Lines(text) {
			if hasAll(line, words) {
				last = strings.TrimRight(line, "\n")
			}
		}
	}
	if last == "" {
		return "", fmt.Errorf("no ztunnel logged a line with %q", words)
	}
	return last, nil
}

func hasAll(line string, words []string) bool {
	for _, word := range words {
		if !strings.Contains(line, word) {
			return false
		}
	}
	return true
}

func (w *Walk) log(ctx context.Context, namespace, pod string) (string, error) {
	r, err := w.API.Logs(ctx, namespace, pod, client.LogOptions{Tail: -1})
	if err != nil {
		return "", err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, 64<<20))
	return string(b), err
}
