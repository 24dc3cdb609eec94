package kubernetes

import (
	"bytes"
	"strings"
	"testing"
	"time"

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
	look := s.longLived(t)
	start := time.Now()
	c.Run(t, 4, // the longest first
		s.scenario("policies", (*stage).policies),
		s.scenario("join and leave", (*stage).joinAndLeave),
		s.scenario("single pods", (*stage).singlePods),
		s.scenario("flapping", (*stage).flapping),
		s.scenario("services", (*stage).services),
		s.scenario("sets", (*stage).sets),
		s.scenario("moved", (*stage).moved),
		s.scenario("jobs", (*stage).jobs),
		s.scenario("probes", (*stage).probes),
		s.scenario("bytes", (*stage).bytes),
		s.scenario("node ports", (*stage).nodePorts),
		s.scenario("host network", (*stage).hostNetwork),
		s.scenario("API server", (*stage).apiServer),
		s.scenario("rolling", (*stage).rolling),
		s.scenario("ending", (*stage).ending),
		s.scenario("restricted", (*stage).restricted),
		s.scenario("sandbox", (*stage).sandbox),
	)
	look(t)
	t.Logf("an idle connection and a watch at the API server lived through %v of that", time.Since(start).Round(time.Second))
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
