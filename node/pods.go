package node

import (
	"net/netip"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/linux/nft"
	"github.com/ambit-mesh/ambit/node/internal/capture"
	"github.com/ambit-mesh/ambit/node/internal/objects"
	"github.com/ambit-mesh/ambit/node/internal/redirect"
)

// captured is a pod whose namespace holds our rules. Only who has the pod's lock may touch it.
type captured struct {
	pod     objects.Pod
	ips     []netip.Addr // whose probes are exempt; the API may not know them yet
	ns      *netns.Namespace
	options capture.Pod
	plan    *redirect.Plan
	right   nft.Generation // in which the tables were as planned; 0: not known
	whole   bool           // also at the proxy, exempted and annotated
	running bool           // its programs may have connections from before
	seen    bool           // the watch has shown this very pod
	unsaid  bool           // whole, and the pod does not say so yet
	leaving time.Time      // when the next step is due, if it leaves the mesh
	relaxed bool           // nothing new is captured, as a step of leaving
	looked  time.Time      // when all of it was last found, or made, as it must be
	cuts    int            // how often to look yet for connections that go past the rules
}

// pods are the captured pods of the node, each worked on by one goroutine at a time.
type pods struct {
	mu    sync.Mutex // guards below
	known map[objects.Key]*captured
	locks map[objects.Key]*podLock
	noted map[objects.Key]string // UIDs of captured pods whose namespace was not found yet
}

type podLock struct {
	sync.Mutex
	users int // those who have it or wait for it
}

func newPods() *pods {
	return &pods{known: map[objects.Key]*captured{}, locks: map[objects.Key]*podLock{}, noted: map[objects.Key]string{}}
}

// lock makes a pod ours to work on.
func (p *pods) lock(k objects.Key) (unlock func()) {
	p.mu.Lock()
	l, ok := p.locks[k]
	if !ok {
		l = &podLock{}
		p.locks[k] = l
	}
	l.users++
	p.mu.Unlock()
	l.Lock()
	return func() {
		l.Unlock()
		p.mu.Lock()
		defer p.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(p.locks, k)
		}
	}
}

func (p *pods) get(k objects.Key) *captured {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.known[k]
}

func (p *pods) set(k objects.Key, c *captured) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known[k] = c
}

func (p *pods) drop(k objects.Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.known, k)
}

// has reports whether a namespace is a captured pod's.
func (p *pods) has(ns *netns.Namespace) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.known {
		if c.ns.ID() == ns.ID() {
			return true
		}
	}
	return false
}

func (p *pods) keys() []objects.Key {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]objects.Key, 0, len(p.known))
	for k := range p.known {
		all = append(all, k)
	}
	return all
}

func (p *pods) kept(k objects.Key) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.noted[k]
}

// keep notes that proxies keep a pod, "" that none does for that reason, and gives the UID that was noted before.
func (p *pods) keep(k objects.Key, uid string) (before string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before = p.noted[k]
	if delete(p.noted, k); uid != "" {
		p.noted[k] = uid
	}
	return before
}
