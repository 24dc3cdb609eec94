package control_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// What got onto the API server while nobody was asked, and means nothing, says so itself, and what is in force in its place.
func TestMalformedObjectsSaySo(t *testing.T) {
	api := startAPI(t)
	const (
		net1 = "networking.istio.io/v1"
		sec  = "security.istio.io/v1"
	)
	write := func(apiVersion, kind, spec string) {
		api.Apply("apiVersion: " + apiVersion + "\nkind: " + kind + "\nmetadata: {name: m, namespace: default}\nspec: " + spec + "\n")
	}
	write(net1, "VirtualService", "{hosts: [web], http: [{route: [{destinaton: {host: web}}]}]}")
	write(net1, "ServiceEntry", "{hosts: [a.example], resolution: DNS, ports: 80}")
	write(net1, "DestinationRule", "{host: web}")
	write(sec, "AuthorizationPolicy", "{selector: {matchLabels: {app: web}}, rules: [{form: []}]}")
	write("telemetry.istio.io/v1", "Telemetry", "{accesLogging: []}")
	r := startReplica(t, api, "a")
	said := func(apiVersion, kind string) string {
		o := api.Get(apiVersion, kind, "default", "m")
		status, _ := o.Object["status"].(map[string]any)
		all, _ := status["conditions"].([]any)
		var out []string
		for _, c := range all {
			c, _ := c.(map[string]any)
			word := func(k string) string { s, _ := c[k].(string); return s }
			out = append(out, word("type")+"="+word("status")+" "+word("reason")+": "+word("message"))
		}
		return strings.Join(out, "\n")
	}
	says := func(apiVersion, kind string, want ...string) {
		t.Helper()
		last := ""
		waitFor(t, kind+" says so", func() bool {
			last = said(apiVersion, kind)
			for _, w := range want {
				if !strings.Contains(last, w) {
					return false
				}
			}
			return true
		})
		t.Logf("%s: %s", kind, last)
	}
	const nothing = "ambit.io/InForce=False NotUnderstood: it is not understood, so nothing of it is in force: "
	says(net1, "VirtualService", nothing+"spec.http[0].route[0]", "destinaton")
	says(net1, "ServiceEntry", nothing+"spec.ports")
	says("telemetry.istio.io/v1", "Telemetry", nothing, "accesLogging")
	says(sec, "AuthorizationPolicy", "ZtunnelAccepted=False Invalid: spec.rules[0]: unknown field", "ambit.io/InForce=False NotUnderstood", "it refuses everything that it may be about")
	t.Run("one that was understood before", func(t *testing.T) {
		write(net1, "DestinationRule", "{host: web, trafficPolcy: {}}")
		says(net1, "DestinationRule", "ambit.io/InForce=False", "what it says now is not understood", "trafficPolcy", "what it said before is in force")
	})
	t.Run("the page of what is not understood", func(t *testing.T) {
		res, err := http.Get(r.debug + "filez")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		page, err := io.ReadAll(res.Body)
		for _, want := range []string{"destinationrules.networking.istio.io/default/m", "authorizationpolicies.security.istio.io/default/m", "telemetries.telemetry.istio.io/default/m"} {
			if err != nil || !strings.Contains(string(page), want) {
				t.Errorf("%s without %s (%v)", page, want, err)
			}
		}
	})
	t.Run("mended", func(t *testing.T) {
		write(net1, "VirtualService", "{hosts: [web], gateways: [g], http: [{route: [{destination: {host: web}}]}]}")
		write(net1, "DestinationRule", "{host: web}")
		write(sec, "AuthorizationPolicy", "{selector: {matchLabels: {app: web}}, action: DENY, rules: [{}]}")
		write("telemetry.istio.io/v1", "Telemetry", "{}")
		for kind, api := range map[string]string{"VirtualService": net1, "DestinationRule": net1, "Telemetry": "telemetry.istio.io/v1", "AuthorizationPolicy": sec} {
			waitFor(t, kind+" does not say so any more", func() bool { return !strings.Contains(said(api, kind), "nderstood") })
		}
	})
}
