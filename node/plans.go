package node

import (
	"sync"

	"github.com/ambit-mesh/ambit/node/internal/capture"
	"github.com/ambit-mesh/ambit/node/internal/redirect"
)

// plans are the rules of pods ready for the kernel: a thousand pods of the same options have one.
type plans struct {
	mu  sync.Mutex // guards below
	all map[capture.Pod]*redirect.Plan
}

// maxPlans is more kinds of pods than a node has; what a pod may say of itself is not bounded.
const maxPlans = 64

func (p *plans) of(o capture.Pod) (*redirect.Plan, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if made, ok := p.all[o]; ok {
		return made, nil
	}
	made, err := redirect.NewPlan(capture.For(o))
	if err != nil {
		return nil, err
	}
	if p.all == nil || len(p.all) >= maxPlans {
		p.all = map[capture.Pod]*redirect.Plan{}
	}
	p.all[o] = made
	return made, nil
}
