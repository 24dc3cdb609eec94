package objects_test

import (
	"encoding/json"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ambit-mesh/ambit/node/internal/objects"
)

func TestPod(t *testing.T) {
	var o objects.PodJSON
	err := json.Unmarshal([]byte(`{"metadata":{"name":"a","namespace":"b","uid":"u","labels":{"x":"y"},"annotations":{
		"ambient.istio.io/redirection":"enabled","kubernetes.io/config.mirror":"hash","kubectl.kubernetes.io/last-applied-configuration":"long"}},
		"spec":{"hostNetwork":true},"status":{"phase":"Running","podIP":"10.0.0.1","podIPs":[{"ip":"10.0.0.1"},{"ip":"fd00::1"},{"ip":"?"}]}}`), &o)
	if err != nil {
		t.Fatal(err)
	}
	want := objects.Pod{
		Key: objects.Key{Namespace: "b", Name: "a"}, UID: "u", ServiceAccount: "default", Labels: map[string]string{"x": "y"},
		Annotations: map[string]string{"ambient.istio.io/redirection": "enabled", "kubernetes.io/config.mirror": "hash"},
		HostNetwork: true, Phase: "Running", IPs: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")},
	}
	if diff := cmp.Diff(want, o.Pod(), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for uid, is := range map[string]bool{"u": true, "hash": true, "": true, "other": false} {
		if o.Pod().Is(uid) != is {
			t.Errorf("Is(%q) = %v", uid, !is)
		}
	}
}

func FuzzPod(f *testing.F) {
	f.Add([]byte(`{"metadata":{"name":"a","labels":{"x":"y"}},"status":{"podIP":"::ffff:10.0.0.1","podIPs":[{"ip":"fe80::1%eth0"}]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var o objects.PodJSON
		if json.Unmarshal(b, &o) != nil {
			return
		}
		p := o.Pod()
		if p.ServiceAccount == "" || len(p.Annotations) > 6 {
			t.Errorf("%q became %+v", b, p)
		}
		for _, a := range p.IPs {
			if !a.IsValid() || a.Is4In6() || a.Zone() != "" {
				t.Errorf("address %v", a)
			}
		}
	})
}
