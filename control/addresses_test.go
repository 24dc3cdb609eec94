package control_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/ambit-mesh/ambit/mesh"
)

const noAddress = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: NAME, namespace: default, labels: {LABEL: LABEL}}\nspec: {hosts: [HOST], resolution: DNS, ports: [{number: 443, name: tls, protocol: TLS}]}\n"

func entryOf(name, host, label string) string {
	return strings.NewReplacer("NAME", name, "HOST", host, "LABEL: LABEL", label).Replace(noAddress)
}

// A ServiceEntry without addresses is given some, which it keeps over restarts, and which its status tells.
func TestAddressesAreAssignedAndKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := startVirtual(t, newMemory(t, cluster+"---\n"+entryOf("one", "one.example", "")+"---\n"+
			entryOf("out", "out.example", "networking.istio.io/enable-autoallocate-ip: 'false'")+"---\n"+entryOf("wild", "'*.wild.example'", "")), nil)
		time.Sleep(5 * time.Second)
		addresses := func(v *virtual, name string) (out []string) {
			v.cluster.mu.Lock()
			defer v.cluster.mu.Unlock()
			se, _ := v.cluster.status["serviceentries.networking.istio.io/default/"+name].(*networkingv1.ServiceEntry)
			for _, a := range se.Status.GetAddresses() {
				out = append(out, a.GetHost()+" "+a.GetValue())
			}
			return out
		}
		first := addresses(v, "one")
		if len(first) != 2 || !strings.HasPrefix(first[0], "one.example 240.240.") || !strings.HasPrefix(first[1], "one.example 2001:2::") {
			t.Fatalf("addresses %v", first)
		}
		if got := append(addresses(v, "out"), addresses(v, "wild")...); len(got) != 0 {
			t.Errorf("they did not want any: %v", got)
		}
		// What proxies know is what the status says.
		_, text := v.get("/debug/registryz", "z1")
		if !strings.Contains(text, `"one.example"`) {
			t.Errorf("registry %s", text)
		}
		s := v.subscribe("z1", ztunnelNode)
		s.settle()
		had := s.held
		s.end()
		v.stop()

		// Another control plane, and an entry that came first by its name and wants the same slot, change nothing.
		again := v.cluster.again()
		again.put(t, entryOf("aaa", "aaa.example", ""))
		w := startVirtual(t, again, nil)
		synctest.Wait()
		s = w.subscribe("z1", ztunnelNode, had)
		defer s.end()
		s.settle()
		if got := s.sent[mesh.TypeAddress]; len(got) != 2 || slices.Contains(got, "default/one.example") {
			t.Errorf("after a restart these were sent again: %v", got)
		}
		time.Sleep(5 * time.Second)
		if got := addresses(w, "one"); !slices.Equal(got, first) {
			t.Errorf("after a restart %v, before %v", got, first)
		}
	})
}
