package zdump

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Filter leaves rows out; empty fields leave none.
type Filter struct {
	Namespace, Name, Node, Address string
	// Direction is inbound or outbound.
	Direction string
	// Raw shows addresses of connections without their names.
	Raw bool
}

// Table is a title row and rows.
type Table [][]string

// WorkloadTable lists each address of each workload.
func (d *Dump) WorkloadTable(f Filter) Table {
	t := Table{{"NAMESPACE", "POD NAME", "ADDRESS", "NODE", "WAYPOINT", "PROTOCOL"}}
	all := slices.SortedFunc(slices.Values(d.Workloads), func(a, b Workload) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.UID, b.UID))
	})
	for _, w := range all {
		if f.Namespace != "" && w.Namespace != f.Namespace || f.Name != "" && w.Name != f.Name || f.Node != "" && w.Node != f.Node ||
			f.Address != "" && !slices.Contains(w.IPs, f.Address) {
			continue
		}
		t = append(t, []string{w.Namespace, w.Name, cmp.Or(strings.Join(w.IPs, ","), w.Hostname), w.Node, d.waypoint(w.Waypoint), w.Protocol})
	}
	return t
}

// ServiceTable lists services, each with how many of its endpoints are healthy.
func (d *Dump) ServiceTable(f Filter) Table {
	t := Table{{"NAMESPACE", "SERVICE NAME", "SERVICE VIP", "WAYPOINT", "ENDPOINTS"}}
	all := slices.SortedFunc(slices.Values(d.Services), func(a, b Service) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Hostname, b.Hostname))
	})
	healthy := d.healthy()
	for _, s := range all {
		var vips []string
		for _, v := range s.VIPs {
			vips = append(vips, bare(v))
		}
		if f.Namespace != "" && s.Namespace != f.Namespace || f.Address != "" && !slices.Contains(vips, f.Address) {
			continue
		}
		ok := 0
		for key, e := range s.Endpoints {
			if healthy[cmp.Or(e.WorkloadUID, key)] {
				ok++
			}
		}
		t = append(t, []string{s.Namespace, s.Name, strings.Join(vips, ","), d.waypoint(s.Waypoint), fmt.Sprintf("%d/%d", ok, len(s.Endpoints))})
	}
	return t
}

// healthy tells which workloads take connections.
func (d *Dump) healthy() map[string]bool {
	out := map[string]bool{}
	for _, w := range d.Workloads {
		out[w.UID] = w.Status != "Unhealthy"
	}
	return out
}

// PolicyTable lists policies.
func (d *Dump) PolicyTable(f Filter) Table {
	t := Table{{"NAMESPACE", "POLICY NAME", "ACTION", "SCOPE"}}
	all := slices.SortedFunc(slices.Values(d.Policies), func(a, b Policy) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	for _, p := range all {
		if f.Namespace == "" || p.Namespace == f.Namespace {
			t = append(t, []string{p.Namespace, p.Name, p.Action, p.Scope})
		}
	}
	return t
}

// CertificateTable lists the certificates of each identity: its own first, then those that it is trusted by.
func (d *Dump) CertificateTable(f Filter, now time.Time) Table {
	t := Table{{"CERTIFICATE NAME", "TYPE", "STATUS", "VALID CERT", "SERIAL NUMBER", "NOT AFTER", "NOT BEFORE"}}
	all := slices.SortedFunc(slices.Values(d.Certificates), func(a, b Certificates) int { return cmp.Compare(a.Identity, b.Identity) })
	for _, c := range all {
		if f.Namespace != "" && !inNamespace(c.Identity, f.Namespace) {
			continue
		}
		if len(c.Chain) == 0 {
			t = append(t, []string{c.Identity, "NA", state(c.State), "false", "NA", "NA", "NA"})
		}
		add := func(kind string, x Certificate) {
			t = append(t, []string{c.Identity, kind, state(c.State), fmt.Sprint(x.valid(now)), serial(x.Serial), x.Until, x.From})
		}
		for i, x := range c.Chain {
			switch {
			case i == 0:
				add("Leaf", x)
			case i == len(c.Chain)-1 && len(c.Roots) == 0: // older ones end the chain with the root
				add("Root", x)
			default:
				add("Intermediate", x)
			}
		}
		for _, x := range c.Roots {
			add("Root", x)
		}
	}
	return t
}

// state is the word of a certificate's state, or the key of an object that says why there is none.
func state(raw json.RawMessage) string {
	var word string
	if json.Unmarshal(raw, &word) == nil {
		if strings.Contains(word, "Unavailable") {
			return "Unavailable" // older ones add why
		}
		return word
	}
	var why map[string]json.RawMessage
	if json.Unmarshal(raw, &why) == nil {
		return strings.Join(slices.Sorted(maps.Keys(why)), ",")
	}
	return "Unknown"
}

func serial(decimal string) string {
	n, ok := new(big.Int).SetString(decimal, 10)
	if !ok {
		return decimal
	}
	return n.Text(16)
}

func (c Certificate) valid(now time.Time) bool {
	from, err := time.Parse(time.RFC3339, c.From)
	if err != nil {
		return false
	}
	until, err := time.Parse(time.RFC3339, c.Until)
	return err == nil && !now.Before(from) && now.Before(until)
}

// ConnectionTable lists what the pods have open.
func (d *Dump) ConnectionTable(f Filter) Table {
	t := Table{{"WORKLOAD", "DIRECTION", "LOCAL", "REMOTE", "REMOTE TARGET", "PROTOCOL"}}
	name := d.names(f.Raw)
	pods := slices.SortedFunc(maps.Values(d.WorkloadState), func(a, b Pod) int {
		return cmp.Or(cmp.Compare(a.Info.Namespace, b.Info.Namespace), cmp.Compare(a.Info.Name, b.Info.Name))
	})
	for _, p := range pods {
		if f.Namespace != "" && p.Info.Namespace != f.Namespace || f.Name != "" && p.Info.Name != f.Name {
			continue
		}
		at := p.Info.Name + "." + p.Info.Namespace
		if f.Direction != "outbound" {
			for _, c := range p.Connections.Inbound {
				t = append(t, []string{at, "Inbound", name(c.ActualDst), name(c.Src), target(c), c.Protocol})
			}
		}
		if f.Direction != "inbound" {
			for _, c := range p.Connections.Outbound {
				t = append(t, []string{at, "Outbound", name(c.Src), name(c.ActualDst), name(c.OriginalDst), c.Protocol})
			}
		}
	}
	return t
}

// target is the name by which an inbound connection was asked for, where it was not its address.
func target(c Connection) string {
	if _, err := netip.ParseAddrPort(c.OriginalDst); err == nil {
		return ""
	}
	return c.OriginalDst
}

// names tells who an address is.
func (d *Dump) names(raw bool) func(string) string {
	known := map[string]string{}
	if !raw {
		for _, w := range d.Workloads {
			for _, ip := range w.IPs {
				known[ip] = w.Name + "." + w.Namespace
			}
		}
		for _, s := range d.Services {
			for _, v := range s.VIPs {
				known[bare(v)] = s.Hostname
			}
		}
	}
	return func(addr string) string {
		ip, port, err := net.SplitHostPort(addr)
		if err != nil || known[ip] == "" {
			return addr
		}
		return net.JoinHostPort(known[ip], port)
	}
}

// waypoint is the service's name behind a gateway.
func (d *Dump) waypoint(g *Gateway) string {
	if g == nil {
		return "None"
	}
	at := bare(g.Destination)
	for _, s := range d.Services {
		if s.Namespace+"/"+s.Hostname == g.Destination {
			return s.Name
		}
	}
	for _, s := range d.Services {
		if s.Hostname == at || slices.ContainsFunc(s.VIPs, func(v string) bool { return bare(v) == at }) {
			return s.Name
		}
	}
	return at
}

// bare drops the network from "network/address".
func bare(s string) string {
	_, after, ok := strings.Cut(s, "/")
	if !ok {
		return s
	}
	return after
}
