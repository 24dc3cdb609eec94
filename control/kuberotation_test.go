package control_test

import (
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/control"
	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/mesh"
)

// CA-18 on Kubernetes: an operator's CA takes over from our own in all replicas, with overlap, and another from that; what
// is signed is good under what is trusted at every moment.
func TestCA18OnAnAPIServer(t *testing.T) {
	api := startAPI(t)
	api.Apply(meshPod("istio-system", "ztunnel-1", "ztunnel", "n1", "10.0.1.1") + meshPod("default", "web-1", "web", "n1", "10.0.1.2"))
	quick := func(c *control.Config) { c.RootDistribute, c.RootOverlap = 3*time.Second, 5*time.Second }
	replicas := []*replica{startReplica(t, api, "a", quick), startReplica(t, api, "b", quick)}
	waitFor(t, "roots", func() bool { return rootsOf(api, "istio-system") != "" })
	token := api.Token("istio-system", "ztunnel", "ztunnel-1", mesh.TokenAudience, time.Hour)
	signedBy := func() (subjects []string) {
		for _, r := range replicas {
			chain, err := r.sign(t, token, "spiffe://cluster.local/ns/default/sa/web")
			if err != nil {
				t.Fatalf("nothing is signed: %v", err)
			}
			trusted, between := x509.NewCertPool(), x509.NewCertPool()
			trusted.AppendCertsFromPEM([]byte(rootsOf(api, "istio-system")))
			for _, c := range chain[1:] {
				between.AddCert(c)
			}
			chains, err := chain[0].Verify(x509.VerifyOptions{Roots: trusted, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
			if err != nil {
				t.Fatalf("what is signed is not good under what is trusted: %v", err)
			}
			last := chains[0][len(chains[0])-1]
			subjects = append(subjects, last.Subject.CommonName)
		}
		return subjects
	}
	for _, name := range []string{"first", "second"} {
		secret, err := kinds.Encode(plugged(t, name))
		if err != nil {
			t.Fatal(err)
		}
		before := rootsOf(api, "istio-system")
		api.Apply(string(secret))
		waitFor(t, "both roots are trusted", func() bool {
			signedBy()
			now := rootsOf(api, "istio-system")
			return now != before && strings.Contains(now, strings.TrimSpace(before))
		})
		waitFor(t, "all replicas sign under the new root", func() bool {
			for _, s := range signedBy() {
				if s != name+" root" {
					return false
				}
			}
			return true
		})
		// Certificates under the old root live for an hour, so it must stay trusted for as long.
		if !strings.Contains(rootsOf(api, "istio-system"), strings.TrimSpace(before)) {
			t.Error("an old root went before what is signed under it")
		}
	}
	if api.Get("v1", "Secret", "istio-system", "istio-ca-secret") == nil {
		t.Error("our own CA is gone; who takes cacerts away needs it")
	}
}
