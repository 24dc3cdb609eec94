// Package gdump reads and shows what a gateway says of itself.
package gdump

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/ambit-mesh/ambit/api/l7"
)

// Dump is a gateway's /config_dump.
type Dump struct {
	Listeners []*l7.Listener
	Routes    []*l7.Route
	Backends  []*l7.Backend
	Secrets   []string

	// Raw keeps all of each list for -o json and yaml.
	Raw map[string]json.RawMessage
}

// Parse reads a /config_dump.
func Parse(b []byte) (*Dump, error) {
	var raw struct {
		Listeners, Routes, Backends []json.RawMessage
		Secrets                     []string
	}
	d := &Dump{}
	if err := json.Unmarshal(b, &raw); err != nil {
		return nil, fmt.Errorf("this is no /config_dump of a gateway: %w", err)
	}
	if err := json.Unmarshal(b, &d.Raw); err != nil {
		return nil, fmt.Errorf("this is no /config_dump of a gateway: %w", err)
	}
	if d.Raw["listeners"] == nil && d.Raw["backends"] == nil {
		return nil, fmt.Errorf("this is no /config_dump of a gateway: it has neither listeners nor backends")
	}
	lenient := protojson.UnmarshalOptions{DiscardUnknown: true}
	read := func(what string, all []json.RawMessage, next func() proto.Message) error {
		for _, one := range all {
			if err := lenient.Unmarshal(one, next()); err != nil {
				return fmt.Errorf("%s of the gateway's dump: %w", what, err)
			}
		}
		return nil
	}
	d.Secrets = raw.Secrets
	if err := read("listeners", raw.Listeners, func() proto.Message {
		d.Listeners = append(d.Listeners, &l7.Listener{})
		return d.Listeners[len(d.Listeners)-1]
	}); err != nil {
		return nil, err
	}
	if err := read("routes", raw.Routes, func() proto.Message {
		d.Routes = append(d.Routes, &l7.Route{})
		return d.Routes[len(d.Routes)-1]
	}); err != nil {
		return nil, err
	}
	return d, read("backends", raw.Backends, func() proto.Message {
		d.Backends = append(d.Backends, &l7.Backend{})
		return d.Backends[len(d.Backends)-1]
	})
}

// Table is a title row and rows.
type Table [][]string

// ListenerTable lists on which ports the gateway takes what.
func (d *Dump) ListenerTable() Table {
	t := Table{{"PORT", "SERVICE PORT", "PROTOCOL", "HOSTS", "GATEWAY"}}
	for _, l := range d.Listeners {
		t = append(t, []string{number(l.GetPort()), number(l.GetServicePort()), l.GetProtocol().String(), strings.Join(l.GetHosts(), ","), l.GetGateway()})
	}
	return sorted(t)
}

// RouteTable lists the rules of each host, in the order in which they are tried.
func (d *Dump) RouteTable() Table {
	t := Table{{"ROUTES", "HOSTS", "MATCH", "TO", "FROM"}}
	routes := slices.SortedStableFunc(slices.Values(d.Routes), func(a, b *l7.Route) int { return cmp.Compare(a.GetName(), b.GetName()) })
	for _, r := range routes {
		for _, rule := range r.GetRules() {
			t = append(t, []string{r.GetSet(), strings.Join(r.GetHosts(), ","), matches(rule), leads(rule), rule.GetSource()})
		}
	}
	return t
}

// BackendTable lists the services that rules lead to.
func (d *Dump) BackendTable() Table {
	t := Table{{"SERVICE FQDN", "PORT", "SUBSET", "ENDPOINTS", "DESTINATION RULE"}}
	for _, b := range d.Backends {
		ends := strconv.Itoa(len(b.GetEndpoints()))
		if b.GetUnknown() {
			ends = "no such service or port"
		}
		t = append(t, []string{b.GetHostname(), number(b.GetPort()), cmp.Or(b.GetSubset(), "-"), ends, cmp.Or(b.GetRule(), "-")})
	}
	return sorted(t)
}

// EndpointTable lists the endpoints of those services.
func (d *Dump) EndpointTable() Table {
	t := Table{{"ENDPOINT", "TUNNEL", "WORKLOAD", "NODE", "IDENTITY", "SERVICE"}}
	for _, b := range d.Backends {
		for _, e := range b.GetEndpoints() {
			tunnel := strings.TrimPrefix(e.GetTunnel().String(), "TUNNEL_")
			t = append(t, []string{
				net.JoinHostPort(e.GetAddress(), number(e.GetPort())), tunnel, e.GetWorkload().GetName() + "." + e.GetWorkload().GetNamespace(),
				e.GetNode(), cmp.Or(e.GetIdentity(), "-"), fmt.Sprintf("%s:%d", b.GetHostname(), b.GetPort()),
			})
		}
	}
	return sorted(t)
}

// SecretTable lists certificates by name: their keys stay in the gateway.
func (d *Dump) SecretTable() Table {
	t := Table{{"RESOURCE NAME", "STATUS"}}
	for _, s := range d.Secrets {
		t = append(t, []string{s, "ACTIVE"})
	}
	return sorted(t)
}

func sorted(t Table) Table {
	slices.SortStableFunc(t[1:], func(a, b []string) int { return slices.Compare(a, b) })
	return t
}

func number(n uint32) string {
	if n == 0 {
		return "-"
	}
	return strconv.Itoa(int(n))
}
