package node

import (
	"bytes"
	"testing"
)

func FuzzEvent(f *testing.F) {
	f.Add([]byte(`{"Netns":"/var/run/netns/x","PodName":"web","PodNamespace":"default","PodUID":"u","IPs":[{"Interface":0,"Address":{"IP":"10.0.0.1","Mask":"////AA=="},"Gateway":"10.0.0.254"}]}`))
	f.Add([]byte(`{"Netns":"/x","PodName":"a","PodNamespace":"b","IPs":[{"Address":{"IP":"::ffff:10.0.0.1"}},{"Address":{"IP":"fe80::1%eth0"}}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, ips, err := parseEvent(bytes.NewReader(b))
		if err != nil {
			return
		}
		if e.Netns == "" || e.PodName == "" || e.PodNamespace == "" || len(ips) != len(e.IPs) {
			t.Errorf("parseEvent(%q) = %+v, %v", b, e, ips)
		}
		for _, a := range ips {
			if !a.IsValid() || a.Is4In6() || a.Zone() != "" {
				t.Errorf("address %v", a)
			}
		}
	})
}
