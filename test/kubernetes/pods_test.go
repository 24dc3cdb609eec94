package kubernetes

import (
	"bytes"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/test/kubernetes/kube"
	"github.com/ambit-mesh/ambit/test/kubernetes/sniff"
)

// testPods is what must hold of pods and their traffic, while nothing that pods of the mesh say is on the network in the clear.
func testPods(t *testing.T, c *kube.Cluster) {
	s := newStage(t, c)
	if c.Own() {
		_, mark, _ := strings.Cut(secret, ": ")
		w, err := sniff.Start(c.State, []byte(mark))
		if err != nil {
			t.Fatal(err)
		}
		defer s.unseen(t, w)
	}
	c.Run(t, 4,
		s.scenario("join and leave", (*stage).joinAndLeave),
		s.scenario("single pods", (*stage).singlePods),
		s.scenario("flapping", (*stage).flapping),
		s.scenario("services", (*stage).services),
		s.scenario("sets", (*stage).sets),
		s.scenario("moved", (*stage).moved),
		s.scenario("jobs", (*stage).jobs),
		s.scenario("probes", (*stage).probes),
	)
}

func (s *stage) scenario(name string, f func(*stage, *testing.T)) kube.Scenario {
	return kube.Scenario{Name: name, Run: func(t *testing.T, c *kube.Cluster) {
		mine := *s
		mine.Cluster = c
		f(&mine, t)
	}}
}

// unseen holds that none of what was said is on the network between nodes.
func (s *stage) unseen(t *testing.T, w *sniff.Watch) {
	t.Helper()
	r, err := w.Stop()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("segments on the network between nodes: %d", r.Seen)
	if r.Lost > 0 || r.Seen == 0 {
		t.Errorf("of %d segments %d were not looked at: nothing is proven", r.Seen, r.Lost)
	}
	for _, f := range r.Found {
		head, _, _ := bytes.Cut(f.Payload, []byte("\n"))
		t.Errorf("in the clear from %s to %s: %.80q", f.From, f.To, head)
	}
}
