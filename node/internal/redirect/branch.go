package redirect

import (
	"errors"
	"net/netip"
	"os"
	"slices"

	"github.com/ambit-mesh/ambit/linux/link"
)

// toPod is the priority at which AWS's network plugin routes to pods.
const toPod = 512

// branch finds the rules that the probes of a pod need on a node where AWS's network plugin gives pods network cards of their own
// ("security groups for pods"). It routes such a pod by a table of its own, out of the node and back, where nobody knows the probes'
// address. The two rules lead probes straight to the pod's interface, and the answers that come in there to the node. Other
// pods have a route in the main table and no rule for their interface, and need nothing.
func branch(pod netip.Addr, rules []link.Rule, routes func(table int) ([]link.Route, error)) ([]link.Rule, error) {
	for _, r := range rules {
		if r.In == "" || r.Table == link.TableMain || r.Table == link.TableLocal {
			continue
		}
		all, err := routes(r.Table)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(all, func(o link.Route) bool { return o.To.IsSingleIP() && o.To.Addr() == pod && o.Link == r.In }) {
			return []link.Rule{
				{V6: pod.Is6(), To: netip.PrefixFrom(pod, pod.BitLen()), Priority: toPod, Table: r.Table},
				{V6: pod.Is6(), In: r.In, Priority: max(r.Priority-1, 0), Table: link.TableLocal},
			}, nil
		}
	}
	return nil, nil
}

// branches tells whether the node is set up for such pods: AWS has it turn early demultiplexing off, which nobody else does.
func branches() bool {
	v, err := link.Sysctl(nil, "ipv4/tcp_early_demux")
	return err == nil && v == "0"
}

// leadLocked makes the node route the probes of pods.
func (p *Probes) leadLocked(pods []netip.Addr) error {
	if len(pods) == 0 || !branches() {
		return nil
	}
	var failed []error
	for _, v6 := range families() {
		rules, err := link.Rules(nil, v6)
		if err != nil {
			return err
		}
		for _, pod := range pods {
			if pod.Is6() != v6 {
				continue
			}
			need, err := branch(pod, rules, func(table int) ([]link.Route, error) { return link.Routes(nil, table, v6) })
			failed = append(failed, err)
			for _, r := range need {
				if !slices.Contains(rules, r) {
					failed = append(failed, link.AddRule(nil, r))
				}
			}
			if len(need) > 0 {
				p.led[pod] = need
			}
		}
	}
	return errors.Join(failed...)
}

// unleadLocked takes the rules of a pod away.
func (p *Probes) unleadLocked(pods []netip.Addr) error {
	var failed []error
	for _, pod := range pods {
		for _, r := range p.led[pod] {
			failed = append(failed, link.DeleteRule(nil, r))
		}
		delete(p.led, pod)
	}
	return errors.Join(failed...)
}

// sweepRules takes away what earlier agents left: with all, everything, else what is of pods that are gone.
func sweepRules(all bool) error {
	if !branches() {
		return nil
	}
	var failed []error
	for _, v6 := range families() {
		rules, err := link.Rules(nil, v6)
		if err != nil {
			return err
		}
		for _, r := range rules {
			if r.Priority != toPod || !r.To.IsValid() || !r.To.IsSingleIP() || r.Table == link.TableMain || r.Table == link.TableLocal {
				continue // AWS's own of this priority look into the main table
			}
			routes, err := link.Routes(nil, r.Table, v6)
			if err != nil || !all && slices.ContainsFunc(routes, func(o link.Route) bool { return o.To == r.To }) {
				failed = append(failed, err)
				continue
			}
			failed = append(failed, link.DeleteRule(nil, r))
			for _, in := range rules {
				if in.In != "" && in.Table == r.Table {
					failed = append(failed, link.DeleteRule(nil, link.Rule{V6: v6, In: in.In, Priority: max(in.Priority-1, 0), Table: link.TableLocal}))
				}
			}
		}
	}
	return errors.Join(failed...)
}

// families are those that the kernel knows, IPv6 as true.
func families() []bool {
	if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
		return []bool{false}
	}
	return []bool{false, true}
}
