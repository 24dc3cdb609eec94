package kinds

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestMeaningless(t *testing.T) {
	const (
		vs = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v}\nspec:\n"
		gw = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: g}\nspec:\n"
		ap = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a}\nspec:\n"
		pa = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p}\nspec:\n"
		ra = "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: r}\nspec:\n"
		se = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: s}\nspec:\n"
		dr = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: d}\nspec:\n"
	)
	for _, c := range []struct{ name, yaml, want string }{
		{
			"VirtualService without hosts", vs + "  gateways: [g]\n  http:\n  - route: [{destination: {host: a}}]\n",
			"f:5: spec: VirtualService has no hosts; say in spec.hosts which requests it is for",
		},
		{"VirtualService that is delegated to", vs + "  http:\n  - route: [{destination: {host: a}}]\n", ""},
		{
			"VirtualService for the whole mesh", vs + "  hosts: ['*']\n  http:\n  - route: [{destination: {host: a}}]\n",
			`f:5: spec.hosts[0]: "*" would take all traffic of the mesh; name hosts, or bind it to gateways only`,
		},
		{
			"regular expression that does not compile", vs + "  hosts: [a]\n  http:\n  - match:\n    - uri:\n        regex: '['\n    route: [{destination: {host: a}}]\n",
			"f:9: spec.http[0].match[0].uri.regex: is not a regular expression: error parsing regexp: missing closing ]: `[`; write it in RE2 syntax",
		},
		{
			"route that leads nowhere", vs + "  hosts: [a]\n  http:\n  - match: [{uri: {prefix: /}}]\n",
			"f:7: spec.http[0]: leads nowhere; add route, redirect, directResponse or delegate",
		},
		{"status that is none", vs + "  hosts: [a]\n  http:\n  - directResponse:\n      status: 42\n", "f:8: spec.http[0].directResponse.status: 42 is not a status that can end a request"},

		{"Gateway without servers", gw + "  selector: {istio: ingressgateway}\n", "f:5: spec: Gateway has no servers; add spec.servers"},
		{
			"Gateway port", gw + "  servers:\n  - port: {number: 70000, name: x, protocol: HTPP}\n    hosts: ['*']\n",
			"f:6: spec.servers[0].port.number: port 70000 is not between 1 and 65535\n" +
				`f:6: spec.servers[0].port.protocol: unknown protocol "HTPP"; did you mean HTTP? known: HTTP, HTTPS, GRPC, GRPC-WEB, HTTP2, MONGO, TCP, TLS, REDIS, MYSQL, HBONE`,
		},
		{"Gateway without hosts", gw + "  servers:\n  - port: {number: 80, name: x, protocol: HTTP}\n", "f:6: spec.servers[0]: has no hosts; use `hosts: [\"*\"]` for all"},
		{"HTTPS without TLS", gw + "  servers:\n  - port: {number: 443, name: x, protocol: HTTPS}\n    hosts: ['*']\n", "f:6: spec.servers[0]: protocol HTTPS needs TLS settings; add tls"},

		{"unknown key", ap + "  rules:\n  - when:\n    - key: source.ipp\n      values: [10.0.0.1]\n", `f:7: spec.rules[0].when[0].key: unknown key "source.ipp"; did you mean "source.ip"?`},
		{"empty source", ap + "  rules:\n  - from:\n    - source: {}\n", "f:7: spec.rules[0].from[0]: has an empty source; leave `from` out to mean everybody"},
		{
			"selector beside target", ap + "  selector: {matchLabels: {a: b}}\n  targetRef: {kind: Service, name: s, group: ''}\n",
			"f:5: spec: has more than one of selector, targetRef and targetRefs; keep one of them",
		},
		{
			"address range", ap + "  rules:\n  - from:\n    - source:\n        ipBlocks: [10.0.0.0/33]\n",
			`f:8: spec.rules[0].from[0].source.ipBlocks[0]: "10.0.0.0/33" is neither an IP address nor a range; write 10.1.2.3 or 10.1.0.0/16`,
		},
		{"DENY nothing", ap + "  action: DENY\n", "f:5: spec.action: a DENY policy without rules denies nothing; use `rules: [{}]` to deny everything"},
		{"deny all by an empty ALLOW", ap + "  {}\n", ""},
		{"CUSTOM without provider", ap + "  action: CUSTOM\n  rules: [{}]\n", "f:5: spec.action: CUSTOM has no provider; name one in spec.provider.name"},

		{"ports without selector", pa + "  portLevelMtls:\n    80: {mode: STRICT}\n", "f:6: spec.portLevelMtls: modes of single ports need a selector; add spec.selector.matchLabels"},
		{"rule without issuer", ra + "  jwtRules:\n  - jwksUri: ftp://x\n", "f:6: spec.jwtRules[0]: has no issuer\n" +
			`f:6: spec.jwtRules[0].jwksUri: "ftp://x" is not the URL of a key set; write an http or https URL`},
		{"entry for everything", se + "  hosts: ['*']\n  ports: [{number: 80, name: http}]\n", `f:5: spec.hosts[0]: "*" would take all traffic; name a domain`},
		{"rule without host", dr + "  subsets: [{name: v1}]\n", "f:5: spec: DestinationRule has no host; add spec.host"},
	} {
		t.Run(c.name, func(t *testing.T) {
			found, err := Decode("f", []byte(c.yaml))
			if err != nil {
				t.Fatal(err)
			}
			if got := found[0].Problems().Error(); got != c.want {
				t.Errorf("problems\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

// Every manifest that this project ships is as it should be.
func TestSamplesAreValid(t *testing.T) {
	n := 0
	err := filepath.WalkDir("../../../samples", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".yaml" {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		found, err := Decode(path, data)
		if err != nil {
			t.Error(err)
		}
		for _, l := range found {
			n++
			if ps := l.Problems(); len(ps) > 0 {
				t.Error(ps)
			}
		}
		return nil
	})
	if err != nil || n < 20 {
		t.Errorf("%d objects read, %v", n, err)
	}
}
