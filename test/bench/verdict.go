package main

import (
	"fmt"
	"strings"
)

// verdict says in sentences where we win and where we lose against Istio's.
func (r *result) verdict() string {
	if !r.has(istio) {
		return "Istio's ztunnel was not measured: ZTUNNEL_BIN was not set.\n"
	}
	var wins, losses []string
	judge := func(what string, ratio float64, smallerIsBetter bool) {
		if ratio == 0 {
			return
		}
		text := fmt.Sprintf("%s %.2f×", what, ratio)
		switch better := ratio < 1 == smallerIsBetter; {
		case ratio > 0.97 && ratio < 1.03:
			wins = append(wins, text+" (even)")
		case better:
			wins = append(wins, text)
		default:
			losses = append(losses, text)
		}
	}
	for _, load := range r.loads {
		judge(load+": CPU", r.ratio(load, perUnit, ambit, istio), true)
		first := columns(load)[0].f
		judge(load+": "+first.String(), r.ratio(load, first, ambit, istio), false)
		if first != speed {
			judge(load+": p50", r.ratio(load, p50, ambit, istio), true)
			judge(load+": p99", r.ratio(load, p99, ambit, istio), true)
		}
	}
	for _, m := range []struct {
		what  string
		count int
	}{{"memory idle", 0}, {"memory with 1 000 idle connections", 1000}, {"memory with 10 000", 10_000}, {"memory after all load", afterLoad}} {
		if theirs := r.memory[memoryKey{istio, m.count}]; theirs > 0 {
			judge(m.what, float64(r.memory[memoryKey{ambit, m.count}])/float64(theirs), true)
		}
	}
	list := func(head string, all []string) string {
		if len(all) == 0 {
			all = []string{"nothing"}
		}
		return "### " + head + "\n\n- " + strings.Join(all, "\n- ") + "\n"
	}
	return list("Where we are better than Istio's ztunnel, or even", wins) + "\n" + list("Where we are worse", losses)
}

// bounds are ratios of CPU to the plain copy that only a serious regression passes, whatever the machine and its other work.
func bounds() map[string]float64 {
	return map[string]float64{
		"bulk, 1 stream": 6, "bulk, 8 streams": 6,
		"128 B request/response, 1 connection": 5, "128 B request/response, 16 connections": 4,
		"new connections, 1 at a time": 5, "new connections, 16 at a time": 4,
	}
}

// farOff lists what is outside of its bounds.
func (r *result) farOff() (errs []error) {
	for load, most := range bounds() {
		if got := r.ratio(load, perUnit, ambit, plain); got > most {
			errs = append(errs, fmt.Errorf("%s: the proxies take %.1f times the CPU of a plain copy, at most %.1f is expected", load, got, most))
		}
	}
	return errs
}
