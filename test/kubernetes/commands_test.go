package kubernetes

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/test/kubernetes/kube"
)

// command is a command line of ambit and what must be in what it says: regular expressions. {ns}, {one}, {two}
// and {file} stand for the namespace, the nodes and a file with a policy.
type command struct {
	line   string
	status int
	want   []string
}

// looks are the commands of docs/commands.md, on a mesh in which web lets only caller in.
func looks() []command {
	return []command{
		{"explain pod/caller web:80 -n {ns}", 0, []string{`captured +yes: the ztunnel of`, `service {ns}/web.{ns}.svc.cluster.local, with 1 endpoint`, `ALLOW {ns}/only-caller matches`, `result +ALLOWED, encrypted and authenticated`}},
		{"explain other web:80 -n {ns}", 0, []string{`does not match: rule 0: principal cluster.local/ns/{ns}/sa/other is not`, `result +DENIED`, `add the principal cluster.local/ns/{ns}/sa/other to a rule of {ns}/only-caller`}},
		{"explain outside web.{ns}:80", 0, []string{`none that it could prove`, `result +DENIED`}},
		{"explain outsider web:80 -n {ns}", 0, []string{`no: the pod has the label istio.io/dataplane-mode=none`, `result +DENIED`}},
		{"explain gateway web.{ns}:80", 0, []string{`the ingress gateway speaks HBONE itself`, `result +DENIED`}},
		{"explain caller web:80 -n {ns} -o json", 0, []string{`"outcome": "ALLOWED"`}},
		{"explain caller wep:80 -n {ns}", 1, []string{`did you mean web\?`}},
		{"explain --last 50", 0, []string{`{ns}/other \(.*policy rejection: allow policies exist, but none allowed`, `policy {ns}/only-caller: `}},
		{"ztunnel-config workload --workload-namespace {ns}", 0, []string{`^NAMESPACE +POD NAME +ADDRESS +NODE +WAYPOINT +PROTOCOL`, `(?m)^{ns} +web +\S+ +{two} +None +HBONE$`, `(?m)^{ns} +outsider .* TCP$`}},
		{"ztunnel-config workload web.{ns} -o json", 0, []string{`"name": "web"`}},
		{"ztunnel-config service --service-namespace {ns}", 0, []string{`^NAMESPACE +SERVICE NAME +SERVICE VIP +WAYPOINT +ENDPOINTS`, `(?m)^{ns} +web .* 1/1$`}},
		{"ztunnel-config policy --policy-namespace {ns}", 0, []string{`(?m)^{ns} +only-caller +Allow +WorkloadSelector$`}},
		{"ztunnel-config certificate --node {two}", 0, []string{`^CERTIFICATE NAME +TYPE +STATUS`, `/ns/{ns}/sa/web +Leaf +Available +true`}},
		{"ztunnel-config connections", 0, []string{`^WORKLOAD +DIRECTION`}},
		{"ztunnel-config all --with-headers", 0, []string{`(?m)^WORKLOAD:$`, `(?m)^POLICY:$`, `(?m)^CONNECTIONS:$`}},
		{"ztunnel-config log", 0, []string{`current log level is`}},
		{"ztunnel-config log --level debug --node {two}", 0, []string{`current log level is debug`}},
		{"ztunnel-config log --reset", 0, []string{`current log level is info`}},
		{"ztunnel-config workload --node nowhere", 1, []string{`no ztunnel runs on a node nowhere; there are: .* on {two}`}},
		{"proxy-status", 0, []string{`^NAME +CLUSTER +NODE`, `(?m)^ztunnel-\S+ +Kubernetes +{two} .* SYNCED`, `(?m)^istio-ingressgateway-\S+ `}},
		{"proxy-status -o json", 0, []string{`"Istiod": "istiod-`}},
		{"proxy-config listener", 0, []string{`{ns}/door`}},
		{"proxy-config route", 0, []string{`web.{ns}.svc.cluster.local:80 +VirtualService/{ns}/door`}},
		{"proxy-config cluster", 0, []string{`web.{ns}.svc.cluster.local +80`}},
		{"proxy-config endpoint", 0, []string{`HBONE +\S+ +{two} +spiffe://cluster.local/ns/{ns}/sa/web`}},
		{"proxy-config secret", 0, []string{`^RESOURCE NAME`}},
		{"proxy-config log", 0, []string{`current log level is`}},
		{"proxy-config all", 0, []string{`{ns}/door`, `RESOURCE NAME`}},
		{"x describe pod web -n {ns}", 0, []string{`in it: ztunnel-\S+ serves the pod`, `spiffe://cluster.local/ns/{ns}/sa/web, certificate valid until`, `web \(`, `VirtualService {ns}/door leads to it`, `PERMISSIVE`, `ALLOW {ns}/only-caller`}},
		{"x describe pod outsider.{ns}", 0, []string{`not in it: the pod has the label istio.io/dataplane-mode=none`}},
		{"x describe pod nowhere -n {ns}", 0, []string{`not ready: it is on no node yet`}},
		{"x describe service web.{ns}", 0, []string{`1 pod, all in the mesh`, `ALLOW {ns}/only-caller`}},
		{"x authz check web.{ns}", 0, []string{`(?m)^ALLOW +{ns}/only-caller +WorkloadSelector +1$`}},
		{"x authz check outsider.{ns}", 0, []string{`nobody enforces policies for outsider.{ns}`}},
		{"analyze -n {ns}", 79, []string{`Warning \[IST0127\] \(AuthorizationPolicy nobody.{ns}\).*app=wep`, `did you mean app=web\?`, `Error \[IST0101\] \(AuthorizationPolicy typo.{ns}\)`}},
		{"analyze -n {ns} --failure-threshold Error --output-threshold Error -o json {file}", 79, []string{`AMB0001`, `read-only.{ns}`}},
		{"analyze --use-kube=false {file}", 79, []string{`AMB0001`}},
		{"analyze -n nowhere", 1, []string{`there is no namespace "nowhere"`}},
		{"validate -f {file}", 0, []string{`1 objects are valid`}},
		{"version", 0, []string{`(?m)^client version: \S+$`, `(?m)^control plane version: \S+$`, `data plane version: \S+ \(\d+ prox(y|ies): `}},
		{"version -o wide", 0, []string{`(?m)^istiod-\S+ +control plane +\S+ +\S+$`, `(?m)^ztunnel-\S+ +ztunnel +{two} +\S+$`, `(?m)^istio-ingressgateway-\S+ +gateway`}},
		{"version --state {file}", 0, []string{`client version`, `no local cluster is running`}},
		{"proxy-status --context nowhere", 1, []string{`context "nowhere" does not exist`}},
	}
}

// testCommands holds what docs/commands.md says of the commands, on a real cluster, sound and broken.
func testCommands(t *testing.T, c *kube.Cluster) {
	s := newStage(t, c)
	ns := s.ambient(t, "commands")
	file := filepath.Join(t.TempDir(), "policy.yaml")
	byHTTP := "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: read-only, namespace: " + ns + "}\n" +
		"spec: {selector: {matchLabels: {app: web}}, rules: [{to: [{operation: {methods: [GET]}}]}]}\n"
	if err := os.WriteFile(file, []byte(byHTTP), 0o600); err != nil {
		t.Fatal(err)
	}
	s.apply(t, ns, pod{name: "web", node: s.two}.yaml(), service("web", ""), client("caller", s.one).yaml(), client("other", s.two).yaml(),
		labelled(client("outsider", s.one), "none").yaml())
	s.ready(t, ns)
	s.apply(t, ns, strings.Replace(client("nowhere", "").yaml(), "spec: {", "spec: {nodeSelector: {no: such}, ", 1), commandPolicies)
	says := func(t *testing.T, cmd command) error {
		t.Helper()
		fill := strings.NewReplacer("{ns}", ns, "{one}", s.one, "{two}", s.two, "{file}", file)
		out, err := s.TryAmbit(strings.Fields(fill.Replace(cmd.line))...)
		if status := exitOf(err); status != cmd.status {
			return fmt.Errorf("ambit %s ends with %d, want %d:\n%s", cmd.line, status, cmd.status, out)
		}
		for _, w := range cmd.want {
			if !regexp.MustCompile(fill.Replace(w)).MatchString(out) {
				return fmt.Errorf("ambit %s: want %s in\n%s", cmd.line, w, out)
			}
		}
		if strings.HasSuffix(cmd.line, "json") && !json.Valid([]byte(out)) {
			return fmt.Errorf("ambit %s: no JSON:\n%s", cmd.line, out)
		}
		return nil
	}
	// What is applied is in force when the proxies say so; a refused connection is what `explain --last` is about.
	s.Eventually(t, patience, "the policy decides", func() error {
		if _, err := s.ask(ns, "caller", "http://web/"); err != nil {
			return err
		}
		if _, err := s.ask(ns, "other", "http://web/"); err == nil {
			return errors.New("other is let in")
		}
		return errors.Join(says(t, looks()[0]), says(t, command{"proxy-config route", 0, []string{"{ns}/door"}}))
	})
	for _, cmd := range looks() {
		t.Run(strings.ReplaceAll(cmd.line, " ", "_"), func(t *testing.T) {
			if err := says(t, cmd); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("each of docs/commands.md is tried", func(t *testing.T) { eachIsTried(t) })
	t.Run("completion knows live names", func(t *testing.T) {
		out, err := s.TryAmbit("__complete", "x", "describe", "pod", "")
		if err != nil || !strings.Contains(out, "web."+ns) {
			t.Errorf("%v: %s", err, out)
		}
	})
	t.Run("bug-report has it all but secrets", func(t *testing.T) { s.report(t, ns) })
	t.Run("rights of docs/commands.md suffice, and without them it is said which", func(t *testing.T) { s.rights(t, ns) })
	if c.Own() {
		t.Run("a ztunnel that hangs is named and keeps nobody waiting", func(t *testing.T) { s.hung(t, ns, says) })
	}
	t.Run("no control plane", func(t *testing.T) { s.headless(t, says) })
}

const commandPolicies = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only-caller}
spec: {selector: {matchLabels: {app: web}}, rules: [{from: [{source: {principals: [cluster.local/ns/NS/sa/caller]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nobody}
spec: {selector: {matchLabels: {app: wep}}, action: DENY, rules: [{}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: typo}
spec: {selector: {matchLabels: {app: caller}}, rules: [{from: [{source: {principals: [cluster.local/ns/NS/sa/webb]}}]}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: door}
spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [NS.example.com]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: door}
spec: {hosts: [NS.example.com], gateways: [door], http: [{route: [{destination: {host: web, port: {number: 80}}}]}]}
---
{apiVersion: v1, kind: Secret, metadata: {name: hidden}, stringData: {password: correct-horse-battery}}
`

// exitOf is the exit status behind an error.
func exitOf(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	return -1
}

// eachIsTried wants every command of the page among those that are tried.
func eachIsTried(t *testing.T) {
	page, err := os.ReadFile("../../docs/commands.md")
	if err != nil {
		t.Fatal(err)
	}
	tried := func(words string) bool {
		return slices.ContainsFunc(looks(), func(c command) bool { return strings.HasPrefix(c.line+" ", words+" ") })
	}
	found := 0
	for _, row := range regexp.MustCompile("(?m)^\\| .*\\? \\| `ambit (.*)` \\|$").FindAllStringSubmatch(string(page), -1) {
		all := []string{""}
		for _, word := range strings.Fields(strings.ReplaceAll(row[1], `\|`, "|")) {
			if strings.ContainsAny(word, "[-") && word != "ztunnel-config" && word != "proxy-status" && word != "proxy-config" && word != "bug-report" || strings.ToUpper(word) == word {
				break
			}
			var longer []string
			for _, a := range all {
				for _, w := range strings.Split(word, "|") {
					longer = append(longer, strings.TrimSpace(a+" "+w))
				}
			}
			all = longer
		}
		for _, words := range all {
			found++
			if words != "bug-report" && words != "x precheck" && !tried(words) { // each has a test of its own
				t.Errorf("ambit %s is on the page and not tried", words)
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d commands were found on the page", found)
	}
}

// report looks into an archive of bug-report.
func (s *stage) report(t *testing.T, ns string) {
	path := filepath.Join(t.TempDir(), "report.tar.gz")
	out := s.Ambit(t, "bug-report", "-f", path, "--include", ns)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	in := tar.NewReader(z)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, strings.TrimPrefix(h.Name, "bug-report/"))
		for _, secret := range []string{"correct-horse-battery", "Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5", "PRIVATE KEY-----\nM"} {
			if strings.Contains(string(b), secret) {
				t.Errorf("%s tells %s", h.Name, secret)
			}
		}
	}
	all := strings.Join(names, "\n")
	for _, want := range []string{
		`versions.yaml`, `pods.txt`, `analyze.txt`, `missing.txt`, `mesh/istiod-\S+/syncz.json`, `mesh/ztunnel-\S+/config_dump.json`, `mesh/ztunnel-\S+/last.json`,
		`mesh/istio-ingressgateway-\S+/config_dump.json`, `logs/istio-system/istio-cni-node-\S+\.log`, `logs/` + ns + `/web/app.log`,
		`objects/` + ns + `/authorizationpolicies.security.istio.io.yaml`, `objects/` + ns + `/secrets.yaml`, `objects/cluster/nodes.yaml`,
	} {
		if !regexp.MustCompile(`(?m)^` + want + `$`).MatchString(all) {
			t.Errorf("no %s in the report, which said\n%s\nand has\n%s", want, out, all)
		}
	}
}

// rights runs commands as one who may what the page says, and as one who may nothing.
func (s *stage) rights(t *testing.T, ns string) {
	page, err := os.ReadFile("../../docs/commands.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```yaml\n")
	roles, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("the page has no YAML")
	}
	bound := "ambit-commands-" + ns
	s.Apply(t, strings.ReplaceAll(roles, "name: ambit-commands", "name: "+bound))
	t.Cleanup(func() {
		s.Kubectl(t, "delete", "clusterrole,clusterrolebinding", bound, "--ignore-not-found")
		s.Kubectl(t, "delete", "-n", "istio-system", "role,rolebinding", bound, "--ignore-not-found")
	})
	s.Kubectl(t, "create", "clusterrolebinding", bound, "--clusterrole="+bound, "--serviceaccount="+ns+":caller")
	s.Kubectl(t, "create", "rolebinding", bound, "-n", "istio-system", "--role="+bound, "--serviceaccount="+ns+":caller")
	as := func(account string) string {
		path := filepath.Join(t.TempDir(), account)
		config := s.Kubectl(t, "config", "view", "--raw", "--minify", "-o", `jsonpath={.clusters[0].cluster.server} {.clusters[0].cluster.certificate-authority-data}`)
		server, ca, _ := strings.Cut(config, " ")
		token := strings.TrimSpace(s.Kubectl(t, "create", "token", account, "-n", ns))
		text := fmt.Sprintf("{apiVersion: v1, kind: Config, current-context: %s, contexts: [{name: %s, context: {cluster: c, user: u, namespace: %s}}],\n"+
			"clusters: [{name: c, cluster: {server: %q, certificate-authority-data: %s}}], users: [{name: u, user: {token: %s}}]}\n", account, account, ns, server, ca, token)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	may, mayNot := as("caller"), as("other")
	for _, line := range []string{"version", "proxy-status", "ztunnel-config all", "proxy-config all", "explain caller web:80", "explain --last", "x describe pod web", "x describe service web", "x authz check web"} {
		args := strings.Fields(line)
		if out, err := s.TryAmbit(append(args, "--kubeconfig", may)...); err != nil || strings.Contains(out, "forbidden") {
			t.Errorf("with all rights, %s: %v\n%s", line, err, out)
		}
		out, err := s.TryAmbit(append(args, "--kubeconfig", mayNot)...)
		if !strings.Contains(out, "forbidden") || !strings.Contains(out, "docs/commands.md has the rights") || err == nil && args[0] != "version" {
			t.Errorf("without rights, %s: %v\n%s", line, err, out)
		}
	}
	out, err := s.TryAmbit("analyze", "--kubeconfig", may, "--failure-threshold", "Error")
	if exitOf(err) != 79 || !strings.Contains(out, "you may not list secrets") || !strings.Contains(out, "IST0127") {
		t.Errorf("analyze without the right to secrets: %v\n%s", err, out)
	}
}

// hung stops a ztunnel as a debugger would.
func (s *stage) hung(t *testing.T, ns string, says func(*testing.T, command) error) {
	signal := func(sig string) { s.Enter(t, s.two, "pkill", "-"+sig, "-x", "ztunnel") }
	signal("STOP")
	defer signal("CONT")
	for _, cmd := range []command{
		{"version --pod-timeout 2s", 0, []string{`(?m)^ztunnel-\S+ +ztunnel +{two} +unknown$`, `(?m)^ztunnel-\S+ +ztunnel +{one} +[^u]`, `ztunnel-\S+ on {two} does not answer: .*no answer within 2s`}},
		{"ztunnel-config certificate --pod-timeout 2s", 1, []string{`/ns/{ns}/sa/caller +Leaf`, `ztunnel-\S+ on {two} does not answer`}},
		{"ztunnel-config workload --pod-timeout 2s --workload-namespace {ns}", 0, []string{`(?m)^{ns} +web`}},
		{"explain caller web:80 -n {ns} --pod-timeout 2s", 0, []string{`captured +yes`, `not asked: ztunnel-\S+ on {two} does not answer`, `NOT DECIDED`}},
		{"explain --last --pod-timeout 2s", 1, []string{`ztunnel-\S+ on {two} does not answer`}},
		{"x describe pod web -n {ns} --pod-timeout 2s", 1, []string{`captured, and its ztunnel cannot be asked: .* on {two} does not answer`, `services +web`}},
		{"proxy-status --pod-timeout 2s", 0, []string{`(?m)^ztunnel-\S+ .* {one} `}},
	} {
		start := time.Now()
		if err := says(t, cmd); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > 30*time.Second {
			t.Errorf("ambit %s took %v: it waits for one that hangs", cmd.line, took)
		}
	}
}

// headless takes the control plane away.
func (s *stage) headless(t *testing.T, says func(*testing.T, command) error) {
	replicas := strings.TrimSpace(s.Kubectl(t, "get", "deployment", "istiod", "-n", "istio-system", "-o", "jsonpath={.spec.replicas}"))
	s.Kubectl(t, "scale", "deployment", "istiod", "-n", "istio-system", "--replicas=0")
	back := func() {
		s.Kubectl(t, "scale", "deployment", "istiod", "-n", "istio-system", "--replicas="+replicas)
		s.Kubectl(t, "rollout", "status", "deployment", "istiod", "-n", "istio-system", "--timeout=3m")
	}
	defer back()
	s.Kubectl(t, "wait", "pod", "-n", "istio-system", "-l", "app=istiod", "--for=delete", "--timeout=3m")
	for _, cmd := range []command{
		{"proxy-status", 1, []string{`no control plane runs in namespace istio-system, of which deployment/istiod wants 0 pods: see .kubectl describe`, `\d+ prox(ies run|y runs) on without it`}},
		{"version", 0, []string{`data plane version: \S+`, `no control plane runs`}},
		{"explain caller web:80 -n {ns}", 0, []string{`result +ALLOWED, encrypted and authenticated`}},
		{"x describe pod web -n {ns}", 0, []string{`in it: ztunnel-`, `ALLOW {ns}/only-caller`}},
		{"analyze -n {ns}", 79, []string{`Error \[AMB0011\] \(Deployment istiod.istio-system\) No control plane is ready`}},
	} {
		if err := says(t, cmd); err != nil {
			t.Error(err)
		}
	}
}
