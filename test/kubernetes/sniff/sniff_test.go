package sniff

import (
	"bytes"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// frame is an Ethernet frame of a TCP segment.
func frame(payload string) []byte {
	f := append(make([]byte, 12), 8, 0)
	ip := []byte{0x45, 0, 0, byte(40 + len(payload)), 0, 0, 0, 0, 64, 6, 0, 0, 10, 244, 1, 2, 10, 244, 2, 3}
	tcp := append([]byte{0x30, 0x39, 0x3a, 0x98}, make([]byte, 16)...)
	tcp[12] = 5 << 4
	return append(append(append(f, ip...), tcp...), payload...)
}

func TestParse(t *testing.T) {
	s, ok := Parse(append(frame("hello"), 0, 0, 0)) // Ethernet pads
	if !ok || s.From != netip.MustParseAddrPort("10.244.1.2:12345") || s.To != netip.MustParseAddrPort("10.244.2.3:15000") || string(s.Payload) != "hello" {
		t.Errorf("%v %+v", ok, s)
	}
	if _, ok := Parse(frame("")); ok {
		t.Error("a segment without payload is one of interest")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(frame("hello"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, ok := Parse(b); ok && (len(s.Payload) == 0 || !bytes.Contains(b, s.Payload)) {
			t.Errorf("payload %q is not of the frame", s.Payload)
		}
	})
}

// TestPlainTextIsSeen: what a node says in the clear to another is found, so that nothing found means something.
func TestPlainTextIsSeen(t *testing.T) {
	state := os.Getenv("AMBIENT_CLUSTER_STATE")
	if _, err := os.Stat(filepath.Join(state, "control-plane", "pid")); state == "" || err != nil {
		t.Skip("needs a cluster of test/cluster, in $AMBIENT_CLUSTER_STATE")
	}
	const mark = "plain-as-day"
	w, err := Start(state, []byte(mark))
	if err != nil {
		t.Fatal(err)
	}
	enter := exec.Command("../../cluster/enter", "node-1", "curl", "-s", "-m", "5", "-H", "X-Mark: "+mark, "http://10.89.0.12:10256/healthz") // kube-proxy's
	if out, err := enter.CombinedOutput(); err != nil {
		t.Errorf("from node-1 to node-2: %v\n%s", err, out)
	}
	r, err := w.Stop()
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Found) == 0 || r.Lost > 0 || !strings.HasPrefix(r.Found[0].From.String(), "10.89.0.11:") {
		t.Errorf("of %d segments, %d lost, found %v", r.Seen, r.Lost, r.Found)
	}
}
