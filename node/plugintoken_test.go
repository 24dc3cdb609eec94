package node_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/testkit/fakeapi"
	"github.com/ambit-mesh/ambit/node/cniplugin"
)

const pluginAccount = "istio-cni-plugin"

// issue makes the API server give tokens of the plugin's account.
func (w *world) issue(i fakeapi.Issue) {
	i.Namespace, i.Account = "istio-system", pluginAccount
	w.api.Issue(i)
}

func (w *world) kubeconfig() string { return filepath.Join(w.conf.RunDir, cniplugin.Kubeconfig) }

// left is the token that the plugin has, "" for none.
func (w *world) left() string {
	w.t.Helper()
	b, err := os.ReadFile(w.kubeconfig())
	if err != nil {
		return ""
	}
	var a cniplugin.Access
	if json.Unmarshal(b, &a) != nil || len(a.Users) != 1 {
		return ""
	}
	return a.Users[0].User.Token
}

// own waits until the plugin has a token of its own that is not the one before.
func (w *world) own(before string) (token string) {
	w.t.Helper()
	waitFor(w.t, 30*time.Second, "a token of the plugin's own", func() bool {
		token = w.left()
		return token != before && strings.HasPrefix(token, "e30.")
	})
	return token
}

func (w *world) metric(name string) float64 {
	w.t.Helper()
	_, text := page(w.t, w.conf.Metrics, "/metrics")
	for line := range strings.Lines(text) {
		if n, value, _ := strings.Cut(strings.TrimSpace(line), " "); n == name {
			v, err := strconv.ParseFloat(value, 64)
			must(w.t, err)
			return v
		}
	}
	w.t.Fatalf("no metric %s", name)
	return 0
}

// CN-01: the plugin's token outlives the agent's pod: whoever is outside the mesh starts on a node that has no agent, and nobody else does.
func TestPluginTokenOutlivesTheAgent(t *testing.T) {
	w := newWorld(t)
	program, inside, outside := w.around()
	w.issue(fakeapi.Issue{})
	w.conf.PluginAccount = pluginAccount
	w.start()
	token := w.own("")
	if ends := w.metric("ambit_node_plugin_token_expiry_timestamp_seconds"); ends < float64(time.Now().Add(23*time.Hour).Unix()) {
		t.Errorf("the metric says that it ends at %v", ends)
	}
	if st, err := os.Stat(w.kubeconfig()); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	w.stop()
	w.api.Revoke("one") // as when its pod is gone
	if err := w.add(program, outside); err != nil {
		t.Errorf("CN-01: pod outside the mesh after the agent's token was revoked: %v", err)
	}
	if err := w.add(program, inside); err == nil || !strings.Contains(err.Error(), "it is of the mesh") {
		t.Errorf("CN-01: pod of the mesh after the agent's token was revoked: %v", err)
	}
	if inside.captured() || outside.captured() {
		t.Error("CN-01: somebody captured a pod though nobody was there")
	}
	// The next agent has another token of its own, and goes on with the plugin's.
	must(t, os.WriteFile(w.conf.TokenFile, []byte("two"), 0o600))
	w.start()
	wait(t, "readiness", func() bool { status, _ := page(t, w.conf.Health, "/readyz"); return status == http.StatusOK })
	wait(t, "a trial of the token", func() bool {
		return strings.Count(strings.Join(w.api.Requests(), "\n"), "/pods/none Bearer "+token) == 2
	})
	if got, n := w.left(), w.api.Issued(); got != token || n != 1 {
		t.Errorf("after a restart the plugin has %q, and %d tokens were asked for", got, n)
	}
	// The account is gone and was made anew.
	w.stop()
	w.api.Revoke(token)
	w.start()
	w.own(token)
}

func TestPluginTokenIsRenewed(t *testing.T) {
	w := newWorld(t)
	w.issue(fakeapi.Issue{Most: 2 * time.Second})
	w.conf.PluginAccount = pluginAccount
	w.start()
	token := w.own("")
	for range 2 {
		token = w.own(token)
	}
}

// While it has no token of its own the plugin gets the agent's; what somebody writes over it does not stay.
func TestPluginTokenFallsBackAndRecovers(t *testing.T) {
	for name, i := range map[string]fakeapi.Issue{
		"no right": {Status: http.StatusForbidden}, "no such account yet": {Status: http.StatusNotFound}, "in trouble": {Status: http.StatusInternalServerError}, "an account without rights": {Powerless: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.issue(i)
			w.conf.PluginAccount = pluginAccount
			w.start()
			wait(t, "readiness", func() bool { status, _ := page(t, w.conf.Health, "/readyz"); return status == http.StatusOK })
			wait(t, "a request", func() bool {
				return strings.Contains(strings.Join(w.api.Requests(), "\n"), "POST /api/v1/namespaces/istio-system/serviceaccounts/istio-cni-plugin/token Bearer one")
			})
			if got, ends := w.left(), w.metric("ambit_node_plugin_token_expiry_timestamp_seconds"); got != "one" || ends != 0 {
				t.Errorf("the plugin has %q until %v", got, ends)
			}
			w.issue(fakeapi.Issue{})
			token := w.own("")
			w.issue(i)
			must(t, os.WriteFile(w.kubeconfig(), []byte("{}"), 0o644))
			must(t, os.WriteFile(filepath.Join(w.conf.ConfDir, "99-other.conf"), []byte("{}"), 0o600)) // it looks
			wait(t, "the file to be repaired", func() bool { return w.left() == token })
		})
	}
}

func TestNoAccountOfThePlugin(t *testing.T) {
	w := newWorld(t)
	w.start()
	wait(t, "readiness", func() bool { status, _ := page(t, w.conf.Health, "/readyz"); return status == http.StatusOK })
	if got, asked := w.left(), strings.Join(w.api.Requests(), "\n"); got != "one" || strings.Contains(asked, "serviceaccounts") {
		t.Errorf("the plugin has %q; asked:\n%s", got, asked)
	}
}
