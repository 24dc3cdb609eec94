package control_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/ambit-mesh/ambit/internal/testkit/kubeapi"
)

// Many who write at once, and objects as large as an API server takes; what a question costs is logged.
func TestWebhookUnderLoad(t *testing.T) {
	api := startAPIWith(t, realKinds)
	client, err := dynamic.NewForConfig(rest.CopyConfig(api.Config))
	if err != nil {
		t.Fatal(err)
	}
	policies := client.Resource(schema.GroupVersionResource{Group: "security.istio.io", Version: "v1", Resource: "authorizationpolicies"}).Namespace("default")
	try := func(text string) error {
		all, err := kubeapi.Objects(text)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		_, err = policies.Create(ctx, all[0], metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
	const good = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: default}\nspec: {selector: {matchLabels: {app: web}}, action: ALLOW, rules: [{from: [{source: {principals: [cluster.local/ns/a/sa/b], namespaces: [c]}}], to: [{operation: {ports: ['80']}}]}]}\n"
	// crowd has clients write at once, and says how long each took.
	crowd := func(clients, each int) (took []time.Duration) {
		var mu sync.Mutex
		var all sync.WaitGroup
		for range clients {
			all.Go(func() {
				for range each {
					begin := time.Now()
					if err := try(good); err != nil {
						t.Errorf("a good policy: %v", err)
						return
					}
					mu.Lock()
					took = append(took, time.Since(begin))
					mu.Unlock()
				}
			})
		}
		all.Wait()
		slices.Sort(took)
		return took
	}
	told := func(what string, d []time.Duration) {
		if len(d) > 0 {
			t.Logf("%s: p50 %v, p99 %v of %d", what, d[len(d)/2].Round(10*time.Microsecond), d[len(d)*99/100].Round(10*time.Microsecond), len(d))
		}
	}
	crowd(1, 100)
	told("one after another, nobody asked", crowd(1, 400))
	told("sixteen at once, nobody asked", crowd(16, 50))
	door := startFront(t, api)
	var at string
	r := startReplica(t, api, "a", validating(t, api, &at))
	door.lead(at)
	waitFor(t, "the webhook is in force", func() bool { return refusesAll(api) })
	crowd(1, 100)
	told("one after another, asked", crowd(1, 400))
	told("sixteen at once, asked", crowd(16, 50))

	// Near 1.5 MB, which is what an API server's store takes.
	blocks := make([]string, 70_000)
	for i := range blocks {
		blocks[i] = fmt.Sprintf("10.%d.%d.0/24", i/250%250, i%250)
	}
	large := func(last string) string {
		return "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: default}\nspec: {rules: [{from: [{source: {ipBlocks: ['" +
			strings.Join(blocks, "','") + "','" + last + "']}}]}]}\n"
	}
	begin := time.Now()
	if err := try(large("10.0.0.1")); err != nil {
		t.Errorf("a large policy: %v", err)
	}
	t.Logf("a policy of %d KiB: %v", len(large(""))>>10, time.Since(begin).Round(time.Millisecond))
	if err := try(large("10.0.0.256")); err == nil || !strings.Contains(err.Error(), "ipBlocks[70000]") {
		t.Errorf("a large policy that is not valid: %v", err)
	}
	t.Run("a large one changes", func(t *testing.T) {
		all, err := kubeapi.Objects(large("10.0.0.1"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := policies.Create(t.Context(), all[0], metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		for _, change := range []string{`{"metadata":{"labels":{"a":"b"}}}`, `{"spec":{"action":"DENY"}}`} {
			if _, err := policies.Patch(t.Context(), "p", types.MergePatchType, []byte(change), metav1.PatchOptions{}); err != nil {
				t.Errorf("%s: %v", change, err)
			}
		}
	})
	r.stop()
}
