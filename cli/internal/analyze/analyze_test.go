package analyze_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/cli/internal/analyze"
	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// messages analyzes a file, or, live, objects of a cluster.
func messages(t *testing.T, yaml string, live bool) string {
	t.Helper()
	found, err := kinds.Decode("t.yaml", []byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	if live {
		for i := range found {
			found[i] = kinds.Located{Object: found[i].Object}
		}
	}
	var b strings.Builder
	for _, m := range analyze.Run(analyze.Input{Objects: found, Live: live}) {
		b.WriteString(m.String() + "\n")
	}
	return b.String()
}

const sound = `
apiVersion: v1
kind: Namespace
metadata: {name: a, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: a}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: caller, namespace: a}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: a}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web, version: v1}}
    spec: {containers: [{name: c, image: i, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: gw, namespace: istio-system, labels: {istio: ingressgateway}}
spec: {containers: [{name: c, image: i}]}
---
apiVersion: v1
kind: Service
metadata: {name: gw, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  ports: [{name: http, port: 80}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw, namespace: a}
spec:
  selector: {istio: ingressgateway}
  servers:
    - hosts: ["*.example.com"]
      port: {name: http, number: 80, protocol: HTTP}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: vs, namespace: a}
spec:
  hosts: [shop.example.com]
  gateways: [gw]
  http:
    - match: [{uri: {prefix: /a}}]
      route: [{destination: {host: web, subset: v1}}]
    - route: [{destination: {host: web}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: a}
spec:
  host: web
  subsets: [{name: v1, labels: {version: v1}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: out, namespace: a}
spec:
  hosts: [api.example.org]
  ports: [{name: tls, number: 443, protocol: TLS}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: a}
spec:
  selector: {matchLabels: {app: web}}
  rules:
    - from: [{source: {principals: [cluster.local/ns/a/sa/caller]}}]
      to: [{operation: {ports: ["8080"]}}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: pa, namespace: a}
spec:
  mtls: {mode: STRICT}
`

func TestSoundObjectsSayNothing(t *testing.T) {
	for _, live := range []bool{false, true} {
		if got := messages(t, sound, live); got != "" {
			t.Errorf("live %v:\n%s", live, got)
		}
	}
}

// TestEachMistakeIsNamed breaks the sound file in one place each, and wants the finding with its line and its remedy.
func TestEachMistakeIsNamed(t *testing.T) {
	const more = "\n---\n"
	for _, c := range []struct {
		code, from, to string
		live           bool
		want           []string
	}{
		{"IST0101 host", "destination: {host: web}", "destination: {host: wbe}", false, []string{`Error [IST0101] (VirtualService vs.a t.yaml:56) Referenced host not found: "wbe"`, "did you mean web?"}},
		{"IST0101 gateway", "gateways: [gw]", "gateways: [b/gw]", false, []string{`t.yaml:52) Referenced gateway not found: "b/gw"`, "→ did you mean gw?"}},
		{"IST0101 selector", "selector: {istio: ingressgateway}\n  servers", "selector: {istio: other}\n  servers", false, []string{`t.yaml:42) Referenced selector not found: "istio=other"`}},
		{"IST0101 subset", "subset: v1", "subset: v2", false, []string{`Referenced host+subset in destinationrule not found: "web+v2"`, "did you mean subset v1?"}},
		{"IST0101 port", "destination: {host: web}", "destination: {host: web, port: {number: 81}}", false, []string{`Referenced host:port not found: "web:81"`, "the service has [80]"}},
		{"IST0101 account", "sa/caller", "sa/callr", true, []string{`Error [IST0101] (AuthorizationPolicy p.a) Referenced serviceaccount not found: "a/callr"`, "did you mean caller?"}},
		{"IST0101 namespace", "principals: [cluster.local/ns/a/sa/caller]", "namespaces: [b]", true, []string{`Referenced namespace not found: "b"`}},
		{"IST0101 credential", "port: {name: http, number: 80, protocol: HTTP}", "port: {name: s, number: 80, protocol: HTTPS}\n      tls: {mode: SIMPLE, credentialName: cert}", false, []string{`t.yaml:46) Referenced credentialName not found: "cert"`, "in namespace istio-system"}},
		{"IST0101 waypoint", "labels: {istio.io/dataplane-mode: ambient}", "labels: {istio.io/dataplane-mode: ambient, istio.io/use-waypoint: wp}", false, []string{`Error [IST0101] (Namespace a t.yaml:4) Referenced waypoint not found: "a/wp"`}},
		{"IST0106", "hosts: [shop.example.com]", "hosts: ['shop..com']", false, []string{"Error [IST0106]", "t.yaml:51)", "is not a host name"}},
		{"IST0107", "metadata: {name: web, namespace: a}\nspec:\n  selector: {matchLabels", "metadata: {name: web, namespace: a, annotations: {ambient.istio.io/dns-capture: 'true'}}\nspec:\n  selector: {matchLabels", false, []string{"Warning [IST0107] (Deployment web.a t.yaml:19) Misplaced annotation: ambient.istio.io/dns-capture can only be applied to Pod", "move it to spec.template.metadata"}},
		{"IST0108", "metadata: {name: web, namespace: a}\nspec:\n  host", "metadata: {name: web, namespace: a, annotations: {istio.io/dry-rum: 'true'}}\nspec:\n  host", false, []string{"Unknown annotation: istio.io/dry-rum", "did you mean istio.io/dry-run?"}},
		{"IST0108 label", "labels: {istio.io/dataplane-mode: ambient}", "labels: {istio.io/dataplane-mode: ambient, istio.io/use-waypiont: w}", false, []string{"Unknown label: istio.io/use-waypiont", "did you mean istio.io/use-waypoint?"}},
		{"IST0109", "\n---\napiVersion: networking.istio.io/v1\nkind: DestinationRule", more + vsFor("x", "web") + more + vsFor("y", "web.a.svc.cluster.local") + "\n---\napiVersion: networking.istio.io/v1\nkind: DestinationRule", false, []string{"Error [IST0109] (VirtualService x.a", "The VirtualServices a/x,a/y associated", "[AMB0008]"}},
		{"IST0112", "ports: [{name: http, port: 80, targetPort: 8080}]", "ports: [{name: http, port: 80, targetPort: 8080}, {name: http-b, port: 90, targetPort: 9090}]", false, []string{`Error [IST0112] (VirtualService vs.a t.yaml:55)`, "exposes multiple ports [80 90]"}},
		{"IST0116", "\n---\napiVersion: v1\nkind: ServiceAccount", more + `{apiVersion: v1, kind: Service, metadata: {name: u, namespace: a}, spec: {selector: {app: web}, ports: [{name: udp, port: 80, protocol: UDP, targetPort: 8080}]}}` + "\n---\napiVersion: v1\nkind: ServiceAccount", false, []string{"Warning [IST0116] (Deployment web.a", "using port 80 but different protocols: [u.a web.a]"}},
		{"IST0118", "{name: http, port: 80, targetPort: 8080}", "{name: web, port: 80, targetPort: 8080}", false, []string{"Info [IST0118] (Service web.a t.yaml:11) Port name web (port: 80, targetPort: 8080)", "name it PROTOCOL"}},
		{"IST0123", "labels: {istio.io/dataplane-mode: ambient}", "labels: {istio.io/dataplane-mode: ambient, istio-injection: enabled}", false, []string{"Warning [IST0123] (Namespace a"}},
		{"IST0125", "{istio.io/dataplane-mode: ambient}", "{istio.io/dataplane-mode: Ambient}", false, []string{`Invalid label istio.io/dataplane-mode: "Ambient" is not one of its values`, "use ambient or none", "[AMB0002]"}},
		{"IST0127", "selector: {matchLabels: {app: web}}\n  rules", "selector: {matchLabels: {app: wbe}}\n  rules", false, []string{"Warning [IST0127] (AuthorizationPolicy p.a t.yaml:76) No matching workloads for this resource with the following labels: app=wbe", "did you mean app=web?"}},
		{"IST0130", "- match: [{uri: {prefix: /a}}]\n      route: [{destination: {host: web, subset: v1}}]\n    - route: [{destination: {host: web}}]", "- route: [{destination: {host: web}}]\n    - match: [{uri: {prefix: /a}}]\n      route: [{destination: {host: web, subset: v1}}]", false, []string{"Warning [IST0130] (VirtualService vs.a t.yaml:55) VirtualService rule #1 not used", "rule #0 before it takes all its requests"}},
		{"IST0131", "    - route: [{destination: {host: web}}]", "    - match: [{uri: {exact: /a/b}}, {uri: {exact: /c}}]\n      route: [{destination: {host: web}}]", false, []string{"Info [IST0131] (VirtualService vs.a t.yaml:56) VirtualService rule #1 match #0 is not used"}},
		{"IST0132", "[shop.example.com]", "[shop.example.org]", false, []string{"t.yaml:51) one or more host [shop.example.org] defined in VirtualService a/vs not found in Gateway a/gw."}},
		{"IST0137", "\n---\napiVersion: v1\nkind: ServiceAccount", more + `{apiVersion: v1, kind: Service, metadata: {name: u, namespace: a}, spec: {selector: {app: web}, ports: [{name: http, port: 81, targetPort: 8080}]}}` + "\n---\napiVersion: v1\nkind: ServiceAccount", false, []string{`[IST0137] (Deployment web.a`, `targetPort "8080" but different ports: [80 81]`}},
		{"IST0145", "\n---\napiVersion: networking.istio.io/v1\nkind: VirtualService", more + `{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: g2, namespace: b}, spec: {selector: {istio: ingressgateway}, servers: [{hosts: ["*.example.com"], port: {name: x, number: 80, protocol: HTTP}}]}}` + "\n---\napiVersion: networking.istio.io/v1\nkind: VirtualService", false, []string{"Error [IST0145] (Gateway gw.a t.yaml:44) Conflict with gateways b/g2", "(Gateway g2.b"}},
		{"IST0162", "port: {name: http, number: 80, protocol: HTTP}", "port: {name: http, number: 8181, protocol: HTTP}", false, []string{"Warning [IST0162] (Gateway gw.a t.yaml:45)", "(port 8181)"}},
		{"IST0166", "spec: {containers: [{name: c, image: i, ports: [{containerPort: 8080}]}]}", "spec: {containers: [{name: c, image: i, ports: [{containerPort: 8080}]}]}" + more + `{apiVersion: v1, kind: Pod, metadata: {name: wp, namespace: a, labels: {app: web, gateway.networking.k8s.io/gateway-name: wp}}, spec: {containers: [{name: c, image: i}]}}`, false, []string{"[IST0166]", "Ineffective selector on Kubernetes Gateway a/wp", "targetRefs"}},
		{"IST0167 target", "selector: {matchLabels: {app: web}}\n  rules", "targetRefs: [{kind: Service, name: web}]\n  rules", false, []string{"[IST0167]", "service a/web has no waypoint"}},
		{"IST0167 disable", "{mode: STRICT}", "{mode: DISABLE}", false, []string{"[IST0167] (PeerAuthentication pa.a", "mode DISABLE cannot be had"}},
		{"IST0171", "subsets: [{name: v1, labels: {version: v1}}]", "subsets: [{name: v1, labels: {version: v1}}]\nstatus: {conditions: [{type: Ready, status: 'False', reason: Bad, message: it is not}]}", true, []string{"[IST0171] (DestinationRule web.a) A condition with a negative status is present: type=Ready, reason=Bad, message=it is not."}},
		{"IST0173", "labels: {version: v1}}]", "labels: {version: v9}}]", false, []string{"Error [IST0173] (DestinationRule web.a t.yaml:63) The Subset v1"}},
		{"IST0174", "host: web\n", "host: wob\n", false, []string{"Warning [IST0174] (DestinationRule web.a t.yaml:62) The host wob"}},
		{"IST0177", "protocol: TLS}]", "protocol: TLS}]" + more + `{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: o2, namespace: b}, spec: {hosts: [api.example.org], ports: [{name: tcp, number: 443, protocol: TCP}]}}`, false, []string{"[IST0177]", "(a/out,b/o2)", "(TCP,TLS)"}},
		{"AMB0001 allow", `operation: {ports: ["8080"]}`, `operation: {ports: ["8080"], methods: [GET]}`, false, []string{"Error [AMB0001] (AuthorizationPolicy p.a t.yaml:78) This ALLOW rule has HTTP attributes (methods)"}},
		{"AMB0001 deny", "selector: {matchLabels: {app: web}}\n  rules:\n    - from: [{source: {principals: [cluster.local/ns/a/sa/caller]}}]\n      to: [{operation: {ports: [\"8080\"]}}]", "action: DENY\n  rules:\n    - to: [{operation: {paths: [/x]}}]", false, []string{"has nothing but HTTP attributes (paths), which ztunnel cannot see, so it denies nothing"}},
		{"AMB0002", "labels: {istio.io/dataplane-mode: ambient}", "labels: {other: x}", false, []string{"[AMB0002] (AuthorizationPolicy p.a", "none of the pods that it is for is in the mesh (Deployment a/web)", "label namespace a istio.io/dataplane-mode=ambient"}},
		{"AMB0003 domain", "cluster.local/ns/a/sa/caller", "other.example/ns/a/sa/caller", false, []string{"Warning [AMB0003] (AuthorizationPolicy p.a t.yaml:78)", "is of the trust domain other.example", "write cluster.local/ns/a/sa/caller"}},
		{"AMB0003 scheme", "cluster.local/ns/a/sa/caller", "spiffe://cluster.local/ns/a/sa/caller", false, []string{"without spiffe://"}},
		{"AMB0004", "spec: {containers: [{name: c, image: i}]}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: gw", "spec: {containers: [{name: c, image: i}]}" + more + `{apiVersion: v1, kind: Pod, metadata: {name: out, namespace: b}, spec: {containers: [{name: c, image: i}]}, status: {phase: Running}}` + "\n---\napiVersion: v1\nkind: Service\nmetadata: {name: gw", true, []string{"Info [AMB0004] (PeerAuthentication pa.a) STRICT refuses every client that is not in the mesh; running ones are in: b (1 pods)."}},
		{"AMB0005", "labels: {istio.io/dataplane-mode: ambient}}", "labels: {istio.io/dataplane-mode: ambient, istio.io/use-waypoint: wp}}" + more + `{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: wp, namespace: a}, spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}, status: {conditions: [{type: Programmed, status: Unknown, reason: Pending, message: wait, lastTransitionTime: "2026-01-01T00:00:00Z"}]}}`, true, []string{"[AMB0005] (Namespace a) The waypoint a/wp is not ready (Pending: wait)"}},
		{"AMB0006", "spec: {containers: [{name: c, image: i}]}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: gw", "spec: {containers: [{name: c, image: i}]}" + more + `{apiVersion: v1, kind: Pod, metadata: {name: in, namespace: a}, spec: {containers: [{name: c, image: i}]}, status: {phase: Running}}` + "\n---\napiVersion: v1\nkind: Service\nmetadata: {name: gw", true, []string{"Error [AMB0006] (Pod in.a) The pod is asked to be in the mesh, but its traffic is not captured"}},
		{"AMB0007", `ports: ["8080"]`, `ports: ["80"]`, false, []string{"Warning [AMB0007] (AuthorizationPolicy p.a t.yaml:79) Port 80 is a service's; the pods behind it listen on 8080"}},
		{"AMB0008", "hosts: [shop.example.com]\n  gateways: [gw]", "hosts: [web]", false, []string{"Warning [AMB0008] (VirtualService vs.a t.yaml:51) These routes have no effect: service a/web has no waypoint"}},
		{"AMB0009", "spec: {containers: [{name: c, image: i, ports", "spec: {hostNetwork: true, containers: [{name: c, image: i, ports", false, []string{"Info [AMB0009] (Deployment web.a"}},
		{"AMB0010", "image: i, ports: [{containerPort: 8080}]}]}", "image: i, ports: [{containerPort: 8080}]}]}" + more + `{apiVersion: v1, kind: Pod, metadata: {name: w2, namespace: a, labels: {app: web, istio.io/dataplane-mode: none}}, spec: {containers: [{name: c, image: i}]}}`, false, []string{"Warning [AMB0010] (Service web.a", "(Pod a/w2)"}},
	} {
		t.Run(c.code, func(t *testing.T) {
			broken := strings.Replace(sound, c.from, c.to, 1)
			if broken == sound {
				t.Fatalf("%q is not in the sound file", c.from)
			}
			got := messages(t, broken, c.live)
			for _, want := range append(c.want, strings.Fields(c.code)[0]) {
				if !strings.Contains(got, want) {
					t.Errorf("no %q in\n%s", want, got)
				}
			}
		})
	}
}

func vsFor(name, host string) string {
	return `{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: ` + name + `, namespace: a}, spec: {hosts: [` + host + `], http: [{route: [{destination: {host: web}}]}]}}`
}

func TestAnObjectMayAskToBeLeftAlone(t *testing.T) {
	broken := strings.Replace(sound, "{name: http, port: 80, targetPort: 8080}", "{name: web, port: 80, targetPort: 8080}", 1)
	quiet := strings.Replace(broken, "kind: Service\nmetadata: {name: web, namespace: a}", "kind: Service\nmetadata: {name: web, namespace: a, annotations: {galley.istio.io/analyze-suppress: 'IST0000, IST0118'}}", 1)
	if got := messages(t, broken, false); !strings.Contains(got, "IST0118") {
		t.Fatalf("nothing to leave out:\n%s", got)
	}
	if got := messages(t, quiet, false); strings.Contains(got, "IST0118") {
		t.Errorf("still told:\n%s", got)
	}
}

func TestEveryCodeIsTested(t *testing.T) {
	var text []byte
	for _, file := range []string{"analyze_test.go", "parts_test.go"} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, b...)
	}
	for _, code := range analyze.Codes() {
		if code != "IST0161" && !strings.Contains(string(text), `{"`+code) && !strings.Contains(string(text), "["+code+"] (") { // credential_test.go
			t.Errorf("no mistake of code %s is tried", code)
		}
	}
}

func TestOurSamplesAreSound(t *testing.T) {
	var found []kinds.Located
	for _, dir := range []string{"bookinfo/platform/kube", "bookinfo/networking", "bookinfo/policy", "sleep", "httpbin", "helloworld", "curl"} {
		files, err := filepath.Glob("../../../samples/" + dir + "/*.yaml")
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v, %v", dir, files, err)
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			some, err := kinds.Decode(f, text)
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, some...)
		}
	}
	for _, o := range found {
		o.Object.SetNamespace("default")
	}
	for _, m := range analyze.Run(analyze.Input{Objects: found}) {
		t.Error(m)
	}
}

func TestOurManifestsAreSound(t *testing.T) {
	files, err := filepath.Glob("../../../manifests/local/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	var found []kinds.Located
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		some, err := kinds.Decode(f, text)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, some...)
	}
	for i := range found {
		if kinds.Of(found[i].Object).Namespaced {
			found[i].Object.SetNamespace("istio-system")
		}
	}
	for _, m := range analyze.Run(analyze.Input{Objects: found}) {
		t.Error(m)
	}
}

func FuzzRun(f *testing.F) {
	f.Add([]byte(sound))
	f.Fuzz(func(_ *testing.T, data []byte) {
		found, err := kinds.Decode("f.yaml", data)
		if err != nil {
			return
		}
		for _, live := range []bool{false, true} {
			for _, m := range analyze.Run(analyze.Input{Objects: found, Live: live}) {
				_ = m.String()
			}
		}
	})
}
