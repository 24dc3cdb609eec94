package install

import (
	"slices"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/manifests"
)

func TestProfilesInstallTheirComponents(t *testing.T) {
	for profile, want := range map[string][]string{
		"ambient":      {"Istio core", "Istiod", "CNI", "Ztunnel"},
		"ambient-2023": {"Istio core", "Istiod", "CNI", "Ztunnel", "Ingress gateways"},
		"default":      {"Istio core", "Istiod", "CNI", "Ztunnel", "Ingress gateways"},
		"demo":         {"Istio core", "Istiod", "CNI", "Ztunnel", "Ingress gateways", "Egress gateways"},
		"minimal":      {"Istio core", "Istiod"},
		"empty":        nil,
	} {
		p, err := Make(Source{Charts: manifests.Charts(), Version: "v1"}, Options{Set: []string{"profile=" + profile}})
		if err != nil {
			t.Errorf("%s: %v", profile, err)
			continue
		}
		var got []string
		for _, s := range p.Steps {
			got = append(got, s.Name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s installs %v, want %v", profile, got, want)
		}
	}
}

func TestUnknownValuesAreRefusedWithTheNearest(t *testing.T) {
	for set, want := range map[string]string{
		"pilot.resorces.x=1":      "values.pilot.resorces: there is no resorces; did you mean resources?",
		"values.global.hubb=x":    "did you mean hub?",
		"cni.ambient.dnsCaptur=1": "did you mean dnsCapture?",
		"profil=ambient":          "did you mean profile?",
		"profile=ambiant":         "there is no profile",
		"cni.chained=false":       "always chained",
	} {
		_, err := Make(Source{Charts: manifests.Charts()}, Options{Set: []string{set}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("--set %s: error %v, want one with %q", set, err, want)
		}
	}
}

func TestPlatformOfTheUserWins(t *testing.T) {
	for _, c := range []struct{ set, want string }{
		{"profile=ambient", "/var/lib/rancher/k3s/data/cni"},
		{"values.global.platform=microk8s", "/var/snap/microk8s/current/opt/cni/bin"},
		{"values.global.platform=none", "/opt/cni/bin"},
		{"values.cni.cniBinDir=/mine", "/mine"},
	} {
		p, err := Make(Source{Charts: manifests.Charts(), Platform: "k3s"}, Options{Set: []string{c.set}})
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		if err := Write(&b, p.Objects()); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(b.String(), "--cni-bin-dir="+c.want+"\n") {
			t.Errorf("--set %s on k3s: the plugin does not go to %s", c.set, c.want)
		}
	}
}
