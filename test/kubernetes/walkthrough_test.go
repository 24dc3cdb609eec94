package kubernetes

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/test/kubernetes/kube"
	"github.com/ambit-mesh/ambit/test/kubernetes/sniff"
)

// The walk's commands, word for word.
const (
	listMesh       = "kubectl get pods -n istio-system"
	bookinfo       = "kubectl apply -f samples/bookinfo/platform/kube/bookinfo.yaml"
	sleep          = "kubectl apply -f samples/sleep/sleep.yaml"
	notsleep       = "kubectl apply -f samples/sleep/notsleep.yaml"
	openGateway    = "kubectl apply -f samples/bookinfo/networking/bookinfo-gateway.yaml"
	throughGateway = "kubectl exec deploy/sleep -- curl -s http://istio-ingressgateway.istio-system/productpage | grep title"
	fromSleep      = "kubectl exec deploy/sleep -- curl -s http://productpage:9080/ | grep title"
	fromNotsleep   = "kubectl exec deploy/notsleep -- curl -s http://productpage:9080/ | grep title"
	enroll         = "kubectl label namespace default istio.io/dataplane-mode=ambient"
	loop           = "for i in $(seq 10); do kubectl exec deploy/notsleep -- curl -s http://productpage:9080/ | grep title; done"
	ztunnelLogs    = "kubectl logs -n istio-system -l app=ztunnel"
	allowSleep     = "kubectl apply -f samples/bookinfo/policy/productpage-viewer.yaml"
	demandTLS      = "kubectl apply -f samples/bookinfo/policy/strict.yaml"
	leave          = "kubectl label namespace default istio.io/dataplane-mode-"
)

// TestReadme: what the README tells users to type after the installation is what the walk types.
func TestReadme(t *testing.T) {
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(b), "\n## On Kubernetes\n")
	section, _, _ = strings.Cut(section, "\n## ")
	_, section, _ = strings.Cut(section, "\nThen:\n")
	var got []string
	for line := range strings.Lines(section) {
		if line, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), "    "); ok && !strings.HasPrefix(line, "#") {
			got = append(got, line)
		}
	}
	want := []string{
		listMesh, bookinfo, sleep, notsleep, openGateway, throughGateway, fromSleep, fromNotsleep, enroll, loop, ztunnelLogs,
		allowSleep, demandTLS, leave, "bin/ambit uninstall --purge",
	}
	if !slices.Equal(got, want) {
		t.Errorf("README.md says\n%s\nand the walk\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

const title = "<title>Simple Bookstore App</title>"

// walk is the walk-through on a cluster.
type walk struct {
	*testing.T
	*kube.Cluster
}

// testWalkThrough is the walk of the README, on the ambient mesh as it was announced in 2023.
func testWalkThrough(t *testing.T, c *kube.Cluster) {
	if !c.Fresh {
		t.Skip("it changes the mesh and the default namespace, and the mesh was there before")
	}
	w := walk{t, c}
	w.install()
	w.deploy()
	before := w.listen(func() {
		for _, line := range []string{throughGateway, fromSleep, fromNotsleep} {
			w.eventually(line, title)
		}
		w.browse()
	})
	w.enrol()
	after := w.listen(func() {
		w.talk()
		w.browse()
	})
	if before != nil && len(before) == 0 {
		t.Error("nothing could be read between the nodes before the pods were of the mesh: seeing nothing afterwards would prove nothing")
	}
	for _, s := range after {
		t.Errorf("pods of the mesh can be read between the nodes: %v → %v %.80q", s.From, s.To, s.Payload)
	}
	w.allow()
	w.demand()
	w.leave()
}

// run is a command that must succeed.
func (w walk) run(line string) string {
	w.Helper()
	out, err := w.Shell(line)
	if err != nil {
		w.Fatal(err)
	}
	return out
}

// eventually runs a command until it says something: nodes and gateways need a moment to learn what is new.
func (w walk) eventually(line, says string) {
	w.Helper()
	w.Eventually(w.T, time.Minute, line, func() error {
		out, err := w.Shell(line)
		if err == nil && !strings.Contains(out, says) {
			err = fmt.Errorf("it said %q, want %s", out, says)
		}
		return err
	})
}

func (w walk) install() {
	ticked(w.T, w.Install(w.T, "ambient-2023"), "✔ Istio core installed ⛵️", "✔ Istiod installed 🧠", "✔ CNI installed 🪢",
		"✔ Ingress gateways installed 🛬", "✔ Ztunnel installed 🔒", "✔ Installation complete")
	// Every pod is there, one of each daemon on every node.
	pods := w.run(listMesh)
	nodes := len(w.Nodes(w.T))
	for name, n := range map[string]int{"istio-cni-node": nodes, "istio-ingressgateway": 1, "istiod": 1, "ztunnel": nodes} {
		ready := regexp.MustCompile(`(?m)^` + name + `-\S+ +1/1 +Running `)
		if got := len(ready.FindAllString(pods, -1)); got != n {
			w.Errorf("%d pods of %s are ready, want %d:\n%s", got, name, n, pods)
		}
	}
}

func (w walk) deploy() {
	for _, line := range []string{bookinfo, sleep, notsleep, openGateway} {
		w.run(line)
		file := line[strings.LastIndex(line, " ")+1:]
		w.Cleanup(func() { w.run("kubectl delete --ignore-not-found --wait=false -f " + file) })
	}
	w.run("kubectl wait --for=condition=Available --timeout=3m deployment --all")
}

// browse asks for the product page from this machine, through the ingress gateway.
func (w walk) browse() {
	w.Helper()
	cmd := exec.CommandContext(w.Context(), "kubectl", "port-forward", "-n", "istio-system", "service/istio-ingressgateway", ":80")
	if w.Own() {
		cmd.Path = w.KubectlPath()
		cmd.Err = nil
	}
	var errs bytes.Buffer
	cmd.Env, cmd.Stderr = w.Env(), &errs
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		w.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
	}()
	said := bufio.NewReader(out)
	line, err := said.ReadString('\n') // Forwarding from 127.0.0.1:PORT -> 80
	if err != nil {
		w.Fatalf("port-forward: %v\n%s", err, &errs)
	}
	go io.Copy(io.Discard, said)
	_, rest, _ := strings.Cut(line, "from ")
	address, _, _ := strings.Cut(rest, " ")
	client := http.Client{Timeout: 20 * time.Second}
	resp, err := client.Get("http://" + address + "/productpage")
	if err != nil {
		w.Fatalf("the product page, through the ingress gateway: %v\n%s", err, &errs)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || !bytes.Contains(page, []byte(title)) {
		w.Errorf("the product page, through the ingress gateway: %s %v %.200q", resp.Status, err, page)
	}
}

// lives are the pods and containers of the default namespace: the same later means that nothing restarted.
func (w walk) lives() string {
	return w.Kubectl(w.T, "get", "pods", "--sort-by=.metadata.name", "-o",
		`jsonpath={range .items[*]}{.metadata.uid} {.status.containerStatuses[*].containerID} {.status.containerStatuses[*].restartCount}{"\n"}{end}`)
}

func (w walk) enrol() {
	lives := w.lives()
	w.run(enroll)
	start := time.Now()
	w.Eventually(w.T, time.Minute, "the pods are captured", func() error { return w.Captured("default") })
	w.Logf("label to captured, as seen by kubectl: %v", time.Since(start).Round(time.Millisecond))
	if now := w.lives(); now != lives {
		w.Errorf("pods restarted: now\n%sbefore\n%s", now, lives)
	}
}

// address is that of an application's only pod.
func (w walk) address(app string) string {
	return w.Kubectl(w.T, "get", "pods", "-l", "app="+app, "-o", "jsonpath={.items[*].status.podIP}")
}

// talk is the looped curl, and what the ztunnels say of it.
func (w walk) talk() {
	if said := w.run(loop); strings.Count(said, title) != 10 {
		w.Errorf("of ten requests these were answered:\n%s", said)
	}
	page, from := w.address("productpage"), w.address("notsleep")
	w.Eventually(w.T, time.Minute, "both ztunnels tell of the connection, and of who it was", func() error {
		w.run(fromNotsleep) // so that it is among the last lines
		logs := w.run(ztunnelLogs)
		for _, want := range []string{
			fmt.Sprintf("peer_ip=%s peer_id=spiffe://cluster.local/ns/default/sa/notsleep}: ztunnel::proxy::inbound: got CONNECT request to %s:9080", from, page),
			fmt.Sprintf("ztunnel::proxy::outbound: proxy to %s:9080 using HBONE via %s:15008 type Direct", page, page),
		} {
			if !strings.Contains(logs, want) {
				return fmt.Errorf("no line with %q in\n%s", want, logs)
			}
		}
		return nil
	})
}

// asked is how many requests of a pod the product page itself tells of.
func (w walk) asked(address string) int {
	logs := w.Kubectl(w.T, "logs", "deploy/productpage-v1", "--tail=-1")
	return strings.Count(logs, "from="+address+":")
}

// allow lets only sleep in: connections of others are cut, with nothing of them at the product page.
func (w walk) allow() {
	w.run(allowSleep)
	w.Cleanup(func() { w.run("kubectl delete --ignore-not-found -f samples/bookinfo/policy/productpage-viewer.yaml") })
	refuse := strings.TrimSuffix(fromNotsleep, " | grep title")
	w.Eventually(w.T, time.Minute, "the policy is in force", func() error {
		if out, err := w.Shell(refuse); err == nil {
			return fmt.Errorf("notsleep is let in: %.100q", out)
		}
		return nil
	})
	from := w.address("notsleep")
	earlier := w.asked(from)
	if earlier == 0 {
		w.Errorf("the product page tells of no request of notsleep, at %s: telling of none later would prove nothing", from)
	}
	for range 5 {
		if out, err := w.Shell(refuse); err == nil {
			w.Errorf("notsleep is let in, though the policy is in force: %.100q", out)
		}
	}
	if now := w.asked(from); now != earlier {
		w.Errorf("of 5 refused requests %d reached the product page", now-earlier)
	}
	if logs := w.Kubectl(w.T, "logs", "-n", "istio-system", "-l", "app=ztunnel", "--tail=-1", "--since=2m"); !strings.Contains(logs, `policy="default/productpage-viewer"`) {
		w.Errorf("no ztunnel tells which policy refused:\n%s", logs)
	}
	w.eventually(fromSleep, title)
}

// demand: mutual TLS is demanded, so a pod outside the mesh is refused, and one of the mesh is not.
func (w walk) demand() {
	outside := w.Namespace(w.T, "outside")
	w.run(sleep + " -n " + outside)
	w.run("kubectl rollout status --timeout=3m -n " + outside + " deploy/sleep")
	ask := "kubectl exec -n " + outside + " deploy/sleep -- curl -s -m 10 http://details.default:9080/details/0"
	w.eventually(ask, "author")
	w.run(demandTLS)
	w.Cleanup(func() { w.run("kubectl delete --ignore-not-found -f samples/bookinfo/policy/strict.yaml") })
	w.Eventually(w.T, time.Minute, "mutual TLS is demanded", func() error {
		if out, err := w.Shell(ask); err == nil {
			return fmt.Errorf("a pod outside the mesh is let in: %.100q", out)
		}
		return nil
	})
	w.eventually("kubectl exec deploy/sleep -- curl -s http://details:9080/details/0", "author")
}

// leave: the pods leave the mesh, and talk on.
func (w walk) leave() {
	w.run("kubectl delete -f samples/bookinfo/policy/strict.yaml -f samples/bookinfo/policy/productpage-viewer.yaml")
	lives := w.lives()
	w.run(leave)
	w.Eventually(w.T, time.Minute, "no pod is captured", func() error {
		out := w.Kubectl(w.T, "get", "pods", "-o", "yaml")
		if n := strings.Count(out, "ambient.istio.io/redirection: enabled"); n > 0 {
			return fmt.Errorf("%d are", n)
		}
		return nil
	})
	for _, line := range []string{throughGateway, fromSleep, fromNotsleep} {
		w.eventually(line, title)
	}
	if now := w.lives(); now != lives {
		w.Errorf("pods restarted: now\n%sbefore\n%s", now, lives)
	}
}

// listen gives the HTTP that can be read between the nodes, of pods of the default namespace, while something is
// done; nil where nodes cannot be listened to.
func (w walk) listen(do func()) []sniff.Segment {
	w.Helper()
	if !w.Own() {
		do()
		return nil
	}
	watch, err := sniff.Start(w.State, []byte("HTTP/1.1"))
	if err != nil {
		w.Fatal(err)
	}
	do()
	report, err := watch.Stop()
	if err := errors.Join(err); err != nil {
		w.Fatal(err)
	}
	if report.Lost > 0 || report.Seen == 0 {
		w.Errorf("of the segments between the nodes %d were seen and %d lost: a proof needs all", report.Seen, report.Lost)
	}
	var pods []netip.Addr
	for _, a := range strings.Fields(w.Kubectl(w.T, "get", "pods", "-o", "jsonpath={.items[*].status.podIP}")) {
		pods = append(pods, netip.MustParseAddr(a))
	}
	found := []sniff.Segment{}
	for _, s := range report.Found {
		if slices.Contains(pods, s.From.Addr()) || slices.Contains(pods, s.To.Addr()) {
			found = append(found, s)
		}
	}
	return found
}
