package control_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ambit-mesh/ambit/control"
)

// get asks the monitoring port; memory's connections come from another machine.
func (v *virtual) get(path, token string) (int, string) {
	v.t.Helper()
	c, err := v.monitor.Dial(v.t.Context())
	if err != nil {
		v.t.Fatal(err)
	}
	defer c.Close()
	auth := ""
	if token != "" {
		auth = "Authorization: Bearer " + token + "\r\n"
	}
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: istiod\r\nConnection: close\r\n%s\r\n", path, auth)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		v.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// XD-05: who shows no token sees no debug page; who shows one sees his own namespace; profiles are for this pod only.
func TestXD05DebugPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := startVirtual(t, newMemory(t, cluster+`
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: mine, namespace: default}
spec: {rules: [{from: [{source: {namespaces: [a]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: theirs, namespace: istio-system}
spec: {rules: [{from: [{source: {namespaces: [a]}}]}]}
`), nil)
		synctest.Wait()
		code, list := v.get("/debug/list", "z1")
		var pages []string
		if err := json.Unmarshal([]byte(list), &pages); err != nil || code != 200 || len(pages) < 9 {
			t.Fatalf("list: %d %s", code, list)
		}
		for _, p := range pages {
			for _, token := range []string{"", "garbage"} {
				if code, body := v.get(p, token); code != http.StatusUnauthorized || strings.Contains(body, "default") {
					t.Errorf("%s with token %q: %d %s", p, token, code, body)
				}
			}
			mine, body := v.get(p, "web")
			if mine != 200 || strings.Contains(body, "istio-system") || strings.Contains(body, "theirs") {
				t.Errorf("%s shows another namespace: %d %s", p, mine, body)
			}
			if _, all := v.get(p, "z1"); p != "/debug/list" && p != "/debug/syncz" && p != "/debug/connections" && p != "/debug/filez" && len(all) < 50 {
				t.Errorf("%s shows nothing to the mesh's own: %s", p, all)
			}
		}
		for _, p := range []string{"/debug/ambientz", "/debug/configz", "/debug/authorizationz", "/debug/statusz"} {
			if _, body := v.get(p, "web"); !strings.Contains(body, "mine") {
				t.Errorf("%s does not show what is its reader's own: %s", p, body)
			}
		}
		for _, p := range []string{"/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/profile"} {
			for _, token := range []string{"", "web", "z1"} {
				if code, _ := v.get(p, token); code != http.StatusNotFound {
					t.Errorf("%s with %q: %d", p, token, code)
				}
			}
		}
		for _, p := range []string{"/version", "/ready", "/metrics"} {
			if code, _ := v.get(p, ""); code != 200 {
				t.Errorf("%s: %d", p, code)
			}
		}
		// A token outlives its pod; what it opens does not.
		web, _ := v.cluster.store.Objects.Pods.Get("default/web-1")
		gone := web.DeepCopy()
		gone.Status.Phase = "Failed"
		v.cluster.write(gone)
		if code, _ := v.get("/debug/syncz", "web"); code != http.StatusUnauthorized {
			t.Errorf("the token of a pod that has ended: %d", code)
		}
	})
}

// The metrics have Istio's names and count what happens.
func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := startVirtual(t, newMemory(t, cluster), nil)
		synctest.Wait()
		if _, err := v.authority("z1", true).Issue(t.Context(), workloadID("web")); err != nil {
			t.Fatal(err)
		}
		for _, token := range []string{"nobody", "z1"} {
			if _, err := v.authority(token, true).Issue(t.Context(), workloadID("far")); err == nil {
				t.Fatal("issued")
			}
		}
		s := v.subscribe("z1", ztunnelNode)
		defer s.end()
		s.settle()
		v.cluster.put(t, "apiVersion: v1\nkind: Service\nmetadata: {name: more, namespace: default}\nspec: {clusterIP: 10.96.0.8, ports: [{port: 80}]}\n")
		s.settle()
		_, text := v.get("/metrics", "")
		got := map[string]string{}
		for line := range strings.Lines(text) {
			if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && !strings.HasPrefix(name, "#") {
				got[name] = value
			}
		}
		for name, want := range map[string]string{
			"citadel_server_csr_count": "3", "citadel_server_success_cert_issuance_count": "1",
			"citadel_server_authentication_failure_count": "1", "citadel_server_id_extraction_err_count": "1",
			"citadel_server_csr_parsing_err_count": "0", "citadel_server_csr_sign_err_count": "0",
			`pilot_xds{version="dev"}`: "1", "pilot_services": "2",
			`pilot_xds_pushes{type="wds"}`: "2", `pilot_xds_pushes{type="wads"}`: "1",
			`pilot_push_triggers{type="service"}`: "1", `pilot_inbound_updates{type="svc"}`: "1",
			"pilot_proxy_convergence_time_count": "3", "pilot_proxy_queue_time_count": "3",
			`pilot_xds_push_time_count{type="wds"}`: "2", `pilot_xds_config_size_bytes_count{type="wds"}`: "2",
			`ambit_ca_rotation_phase{phase="stable"}`: "1", "ambit_ca_problem": "0",
		} {
			if got[name] != want {
				t.Errorf("%s is %q, want %s", name, got[name], want)
			}
		}
		for _, name := range []string{"citadel_server_root_cert_expiry_timestamp", "citadel_server_cert_chain_expiry_timestamp", "pilot_debounce_time_count", "pilot_pushcontext_init_seconds_count"} {
			if got[name] == "" || got[name] == "0" {
				t.Errorf("%s is %q", name, got[name])
			}
		}
	})
}

// CA-17: no page, log or metric holds a byte of a key.
func TestCA17NoKeyIsShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logs strings.Builder
		m := newMemory(t, cluster)
		own := plugged(t, "one")
		m.write(own)
		v := startVirtual(t, m, func(c *control.Config) {
			c.Log = slog.New(slog.NewTextHandler(&logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
		})
		synctest.Wait()
		if _, err := v.authority("z1", true).Issue(t.Context(), workloadID("web")); err != nil {
			t.Fatal(err)
		}
		next := plugged(t, "two")
		v.cluster.write(next) // the old key is kept for a while
		bad := plugged(t, "three")
		time.Sleep(time.Second)
		bad.Data["ca-cert.pem"] = bad.Data["ca-key.pem"]
		v.cluster.write(bad)
		time.Sleep(time.Second)
		_, list := v.get("/debug/list", "z1")
		var pages []string
		if err := json.Unmarshal([]byte(list), &pages); err != nil {
			t.Fatal(err)
		}
		shown := map[string]string{}
		for _, p := range append(pages, "/metrics", "/version", "/ready") {
			_, shown[p] = v.get(p, "z1")
		}
		v.stop()
		shown["log"] = logs.String()
		if !strings.Contains(shown["log"], "certificate issued") || !strings.Contains(shown["/debug/ca"], "ca-cert.pem holds a EC PRIVATE KEY") {
			t.Fatalf("nothing was logged or shown:\n%s%s", shown["log"], shown["/debug/ca"])
		}
		for _, key := range [][]byte{own.Data["ca-key.pem"], next.Data["ca-key.pem"], bad.Data["ca-key.pem"]} {
			lines := strings.Split(string(key), "\n")
			for _, where := range slices.Sorted(maps.Keys(shown)) {
				for _, line := range lines[1 : len(lines)-2] {
					if strings.Contains(shown[where], line) || strings.Contains(shown[where], "PRIVATE KEY-----") {
						t.Errorf("%s shows a key", where)
					}
				}
			}
		}
	})
}

// From within the pod everything is shown, but not to a page of elsewhere in a browser.
func TestDebugFromHere(t *testing.T) {
	p := start(t)
	p.roots() // once it serves
	get := func(path string, header ...string) int {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.monitor+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i+1 < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
			if header[i] == "Host" {
				r.Host = header[i+1]
			}
		}
		c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	for _, path := range []string{"/debug/syncz", "/debug/list", "/debug/ca", "/debug/pprof/"} {
		if code := get(path); code != 200 {
			t.Errorf("%s: %d", path, code)
		}
		for _, header := range [][]string{{"Origin", "https://evil.example"}, {"Sec-Fetch-Site", "cross-site"}, {"Host", "evil.example"}} {
			if code := get(path, header...); code == 200 {
				t.Errorf("%s answers a page of elsewhere: %v", path, header)
			}
		}
	}
}
