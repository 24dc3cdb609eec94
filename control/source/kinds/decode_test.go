package kinds

import (
	"strings"
	"testing"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
)

func TestRefusalsSayWhereWhatAndHow(t *testing.T) {
	for _, c := range []struct{ name, yaml, want string }{
		{
			"unknown field of a Kubernetes kind", "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\nspec:\n  prots: []\n",
			`f.yaml:6: spec: unknown field "prots"; did you mean "ports"?`,
		},
		{
			"unknown field of an Istio kind", "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec:\n  hosts: [web]\n  http:\n  - match:\n    - uri: {exat: /}\n",
			`f.yaml:8: spec.http[0].match[0].uri: unknown field "exat"; did you mean "exact"?`,
		},
		{
			"ill-typed field", "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  ports:\n  - port: http\n",
			`f.yaml:6: spec.ports[0].port: want a whole number, not "http"`,
		},
		{
			"number where text is wanted", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata:\n  a: 1\n",
			`f.yaml:5: data.a: want a string, not "1" (a number); put it in quotes`,
		},
		{
			"unknown value of an enumeration", "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p}\nspec:\n  mtls:\n    mode: STRIKT\n",
			`f.yaml:6: spec.mtls.mode: unknown value "STRIKT"; did you mean STRICT? known: UNSET, DISABLE, PERMISSIVE, STRICT`,
		},
		{
			"two of a choice", "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v}\nspec:\n  http:\n  - match:\n    - uri: {exact: /, prefix: /}\n",
			`f.yaml:7: spec.http[0].match[0].uri: has both "exact" and "prefix"; keep one of them`,
		},
		{"no name", "apiVersion: v1\nkind: Service\nmetadata:\n  namespace: a\n", `f.yaml:4: metadata: Service has no name; give it metadata.name`},
		{"a name that leaves its directory", "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: ../x\n", `f.yaml:4: metadata.name: "../x" is not a name: use lower-case letters, digits, '-' and '.'`},
		{"the same field twice", "apiVersion: v1\nkind: Service\nkind: Pod\nmetadata: {name: x}\n", `f.yaml:3: field "kind" is there twice, first in line 2; remove one`},
		{"bad YAML", "a: b: c\n", `f.yaml:1: is not YAML: mapping values are not allowed in this context`},
		{
			"wrong group of a known kind", "apiVersion: istio.io/v1\nkind: VirtualService\nmetadata: {name: x}\n",
			`f.yaml:1: ambit does not know kind VirtualService (apiVersion istio.io/v1); did you mean apiVersion networking.istio.io/v1?`,
		},
		{
			"bad duration", "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: x}\nspec:\n  http:\n  - timeout: 10 seconds\n",
			`f.yaml:6: spec.http[0].timeout: "10 seconds" is not a duration; write 10s, 500ms or 1h`,
		},
		{
			"second document", "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {nam: b}\n",
			"f.yaml:7: metadata: unknown field \"nam\"; did you mean \"name\"?\nf.yaml:7: metadata: Namespace has no name; give it metadata.name",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Decode("f.yaml", []byte(c.yaml))
			if err == nil || err.Error() != c.want {
				t.Errorf("error\n%v\nwant\n%s", err, c.want)
			}
			if got != nil {
				t.Errorf("returned %d objects beside the error", len(got))
			}
		})
	}
	_, err := Decode("f.yaml", []byte("apiVersion: v1\nkind: Wibble\nmetadata: {name: x}\n"))
	if err == nil || !strings.HasPrefix(err.Error(), "f.yaml:2: ambit does not know kind Wibble (apiVersion v1); known: AuthorizationPolicy, BackendTLSPolicy") {
		t.Errorf("unknown kind: %v", err)
	}
}

func TestVersionsOfAKindAreOneType(t *testing.T) {
	for _, version := range []string{"v1alpha3", "v1beta1", "v1"} {
		got, err := Decode("f", []byte("apiVersion: networking.istio.io/"+version+"\nkind: Gateway\nmetadata: {name: g}\nspec: {selector: {istio: ingressgateway}}\n"))
		if err != nil {
			t.Fatal(err)
		}
		g, ok := got[0].Object.(*networkingv1.Gateway)
		if !ok || g.APIVersion != "networking.istio.io/v1" || g.Spec.Selector["istio"] != "ingressgateway" {
			t.Errorf("%s decodes to %T %v", version, got[0].Object, got[0].Object)
		}
	}
}

func TestWhatKubernetesAcceptsIsAccepted(t *testing.T) {
	const file = `# a comment
---
apiVersion: v1
kind: List
items:
- &sa
  apiVersion: v1
  kind: ServiceAccount
  metadata: {name: a, creationTimestamp: null}
  automountServiceAccountToken: no
- apiVersion: v1
  kind: Secret
  metadata: {name: s}
  stringData: {key: text}
---
apiVersion: security.istio.io/v1beta1
kind: PeerAuthentication
metadata: {name: p, namespace: default}
spec:
  selector: {matchLabels: {app: a}}
  portLevelMtls:
    8080: {mode: DISABLE}
---
{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c",
	"resources": {"requests": {"cpu": 1, "memory": "64Mi"}}, "ports": [{"containerPort": 80}],
	"readinessProbe": {"httpGet": {"port": "http", "path": "/"}}}]}}
---
`
	got, err := Decode("f", []byte(file))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 4 {
		t.Fatalf("%d objects, want 4", len(got))
	}
	if sa := got[0].Object.(*corev1.ServiceAccount); sa.AutomountServiceAccountToken == nil || *sa.AutomountServiceAccountToken {
		t.Error("automountServiceAccountToken: no is not false")
	}
	if s := got[1].Object.(*corev1.Secret); string(s.Data["key"]) != "text" || s.StringData != nil {
		t.Errorf("secret data %v", s.Data)
	}
	if pa := got[2].Object.(*securityv1.PeerAuthentication); pa.Spec.PortLevelMtls[8080] == nil || got[2].Line != 16 {
		t.Errorf("line %d: %v", got[2].Line, pa)
	}
}

func TestAliasBombIsRefused(t *testing.T) {
	bomb := "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'j'; c++ {
		prev := string(c - 1)
		bomb += string(c) + ": &" + string(c) + " [*" + prev + strings.Repeat(",*"+prev, 9) + "]\n"
	}
	if _, err := Decode("bomb", []byte(bomb)); err == nil || !strings.Contains(err.Error(), "aliases expand to more than") {
		t.Errorf("error %v", err)
	}
	if _, err := Decode("deep", []byte(strings.Repeat("[", 1000))); err == nil {
		t.Error("unbounded nesting is accepted")
	}
}

func TestEncodeIsReadBack(t *testing.T) {
	const file = `apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  selector:
    matchLabels:
      app: web
  strategy: {}
  template:
    metadata:
      labels:
        app: web
    spec:
      containers:
        - image: web
          name: web
          resources: {}
`
	got, err := Decode("f", []byte(file))
	if err != nil {
		t.Fatal(err)
	}
	out, err := Encode(got[0].Object)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(strings.Fields(string(out)), " ") != strings.Join(strings.Fields(file), " ") {
		t.Errorf("encoded\n%s\nwant\n%s", out, file)
	}
}

func TestFindTakesTheWordsPeopleUse(t *testing.T) {
	for word, want := range map[string]string{
		"Pod": "pods", "po": "pods", "deploy": "deployments.apps", "vs": "virtualservices.networking.istio.io",
		"gateway": "gateways.gateway.networking.k8s.io", "gw": "gateways.networking.istio.io", "gtw": "gateways.gateway.networking.k8s.io",
		"gateways.networking.istio.io": "gateways.networking.istio.io", "gateways.v1.networking.istio.io": "gateways.networking.istio.io",
		"authorizationpolicies.security.istio.io": "authorizationpolicies.security.istio.io",
	} {
		if k, ok := Find(word); !ok || k.Resource() != want {
			t.Errorf("Find(%s) = %s %v, want %s", word, k.Resource(), ok, want)
		}
	}
	if k, ok := Find("pods.apps"); ok {
		t.Errorf("Find(pods.apps) = %s", k.Resource())
	}
}

func TestEveryKindIsWhatItSays(t *testing.T) {
	for _, k := range All() {
		o := k.New()
		if Of(o).Resource() != k.Resource() || o.GetObjectKind().GroupVersionKind().Kind != k.Kind {
			t.Errorf("New of %s gives %T", k.Resource(), o)
		}
	}
}
