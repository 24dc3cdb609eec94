package state

import (
	"net/netip"
	"testing"

	"github.com/ambit-mesh/ambit/api/workload"
)

// TestServiceAt: what a connection is reported for, where only its port is sure. A client names a service only to choose
// among those that the workload is behind.
func TestServiceAt(t *testing.T) {
	s := New(Config{})
	if err := s.ApplyAddresses(Addresses{Set: []*workload.Address{
		svc("web", "10.96.0.1"), svc("also", "10.96.0.2"), svc("other", "10.96.0.3"), wl("b", "10.0.0.2", serves(9080, "web", "also")),
	}}); err != nil {
		t.Fatal(err)
	}
	w := s.Workload(netip.MustParseAddr("10.0.0.2"))
	for _, tc := range []struct {
		name, named string
		port        uint16
		want        string
	}{
		{"the one that is named", "web", 9080, "web"},
		{"named, whatever the port", "web", 1, "web"},
		{"the first that leads to the port", "", 9080, "also"},
		{"one that the workload is not behind is not believed", "other", 9080, "also"},
		{"no service leads to the port", "", 9081, ""},
		{"the service's own port says nothing", "", 80, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := ""
			if svc := s.ServiceAt(w, tc.named, tc.port); svc != nil {
				got = svc.Hostname
			}
			if got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}
