package control

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/ambit-mesh/ambit/api/discovery"
	"github.com/ambit-mesh/ambit/control/internal/ca"
	"github.com/ambit-mesh/ambit/control/source"
)

// door decides who may subscribe, and under which name.
type door struct {
	callers      Callers
	rules        ca.Rules
	nodeAccounts []string
}

// authenticate finds who calls. A token outlives its pod; a subscription must not be made with it then.
func (d door) authenticate(ctx context.Context) (source.Caller, error) {
	c, err := ca.Authenticate(ctx, d.callers)
	if err != nil {
		return source.Caller{}, err
	}
	if err := d.rules.Alive(c); err != nil {
		return source.Caller{}, err
	}
	return c, nil
}

// admit holds a proxy to what its token says: a node id is role~address~pod.namespace~domain, and anybody can write one.
func (d door) admit(c source.Caller, n *discovery.Node) error {
	part := strings.Split(n.GetId(), "~")
	if len(part) != 4 {
		return fmt.Errorf("node id %q is not role~address~pod.namespace~domain", n.GetId())
	}
	dot := strings.LastIndexByte(part[2], '.') // a pod's name may have dots, a namespace's has none
	if dot < 0 {
		return fmt.Errorf("node id %q names no namespace", n.GetId())
	}
	pod, namespace := part[2][:dot], part[2][dot+1:]
	switch {
	case namespace != c.Namespace:
		return fmt.Errorf("node %q claims namespace %s, its token is of %s", n.GetId(), namespace, c.Namespace)
	case c.Pod != "" && pod != c.Pod:
		return fmt.Errorf("node %q claims pod %s, its token is of %s", n.GetId(), pod, c.Pod)
	case part[0] == "ztunnel" && !slices.Contains(d.nodeAccounts, c.Account()):
		return fmt.Errorf("node %q claims to be a ztunnel, which %s is not", n.GetId(), c.Account())
	}
	return nil
}
