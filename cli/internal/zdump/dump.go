// Package zdump reads and shows what a ztunnel, ours or Istio's, says of itself.
package zdump

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Dump is what the tables need of /config_dump. Raw keeps all of each list for -o json and yaml.
type Dump struct {
	Workloads     many[Workload]     `json:"workloads"`
	Services      many[Service]      `json:"services"`
	Policies      many[Policy]       `json:"policies"`
	Certificates  many[Certificates] `json:"certificates"`
	WorkloadState map[string]Pod     `json:"workloadState"`

	Raw map[string]json.RawMessage `json:"-"`
}

// many is a list, or, as older ztunnels of Istio write it, a map whose keys say nothing more.
type many[T any] []T

// UnmarshalJSON reads both.
func (m *many[T]) UnmarshalJSON(b []byte) error {
	var byKey map[string]T
	if json.Unmarshal(b, &byKey) != nil {
		return json.Unmarshal(b, (*[]T)(m))
	}
	for _, key := range slices.Sorted(maps.Keys(byKey)) {
		*m = append(*m, byKey[key])
	}
	return nil
}

// Workload of the mesh.
type Workload struct {
	UID       string   `json:"uid"`
	Name      string   `json:"name"`
	Namespace string   `json:"namespace"`
	Hostname  string   `json:"hostname"` // where there is no address yet
	IPs       []string `json:"workloadIps"`
	Node      string   `json:"node"`
	Protocol  string   `json:"protocol"`
	Status    string   `json:"status"`
	Waypoint  *Gateway `json:"waypoint"`
	Policies  []string `json:"authorizationPolicies"` // "namespace/name" of those that select it
}

// Gateway is a waypoint: "namespace/host" or "network/address".
type Gateway struct {
	Destination string `json:"destination"`
}

// Service of the mesh.
type Service struct {
	Name      string              `json:"name"`
	Namespace string              `json:"namespace"`
	Hostname  string              `json:"hostname"`
	VIPs      []string            `json:"vips"`
	Waypoint  *Gateway            `json:"waypoint"`
	Endpoints map[string]Endpoint `json:"endpoints"`
}

// Endpoint of a service.
type Endpoint struct {
	WorkloadUID string `json:"workloadUid"`
}

// Policy of the mesh.
type Policy struct {
	Name      string          `json:"name"`
	Namespace string          `json:"namespace"`
	Scope     string          `json:"scope"`
	Action    string          `json:"action"`
	DryRun    bool            `json:"dryRun"`
	Rules     json.RawMessage `json:"rules"`
	// Problem is what the ztunnel does not understand of it.
	Problem string `json:"problem"`
}

// Certificates of one identity.
type Certificates struct {
	Identity string          `json:"identity"`
	State    json.RawMessage `json:"state"` // a word, or an object that says what failed
	Chain    []Certificate   `json:"certChain"`
	Roots    []Certificate   `json:"rootCerts"`
}

// Certificate is one of a chain.
type Certificate struct {
	Serial string `json:"serialNumber"`
	From   string `json:"validFrom"`
	Until  string `json:"expirationTime"`
}

// Pod that the ztunnel serves.
type Pod struct {
	State string `json:"state"`
	Info  struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	} `json:"info"`
	Connections struct {
		Inbound  []Connection `json:"inbound"`
		Outbound []Connection `json:"outbound"`
	} `json:"connections"`
}

// Connection that a pod has open.
type Connection struct {
	Src         string `json:"src"`
	OriginalDst string `json:"originalDst"`
	ActualDst   string `json:"actualDst"`
	Protocol    string `json:"protocol"`
}

// Parse reads a /config_dump.
func Parse(b []byte) (*Dump, error) {
	d := &Dump{}
	if err := json.Unmarshal(b, d); err != nil {
		return nil, fmt.Errorf("this is no /config_dump of a ztunnel: %w", err)
	}
	if err := json.Unmarshal(b, &d.Raw); err != nil {
		return nil, fmt.Errorf("this is no /config_dump of a ztunnel: %w", err)
	}
	if d.Raw["workloads"] == nil {
		return nil, fmt.Errorf("this is no /config_dump of a ztunnel: it lists no workloads")
	}
	return d, nil
}

// Only is one list of the dump with all its fields, as far as the filter leaves it and in the order of the tables.
func (d *Dump) Only(key string, f Filter) []json.RawMessage {
	var list []json.RawMessage
	if json.Unmarshal(d.Raw[key], &list) != nil {
		var byUID map[string]json.RawMessage
		if json.Unmarshal(d.Raw[key], &byUID) == nil {
			list = slices.Collect(maps.Values(byUID))
		}
	}
	list = slices.DeleteFunc(append([]json.RawMessage{}, list...), func(raw json.RawMessage) bool { return !f.keeps(raw) })
	slices.SortStableFunc(list, func(a, b json.RawMessage) int { return strings.Compare(nameOf(a), nameOf(b)) })
	return list
}

// common is what entries of every list may have.
type common struct {
	UID         string   `json:"uid"`
	Name        string   `json:"name"`
	Namespace   string   `json:"namespace"`
	Node        string   `json:"node"`
	Identity    string   `json:"identity"`
	WorkloadIPs []string `json:"workloadIps"`
	VIPs        []string `json:"vips"`
	Info        struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	} `json:"info"`
}

func nameOf(raw json.RawMessage) string {
	var x common
	if json.Unmarshal(raw, &x) != nil {
		return ""
	}
	return strings.Join([]string{x.Namespace + x.Info.Namespace, x.Name + x.Info.Name, x.Identity, x.UID}, "\x00")
}

// keeps tells whether a workload, service, policy, certificate or pod passes the filter.
func (f Filter) keeps(raw json.RawMessage) bool {
	var x common
	if json.Unmarshal(raw, &x) != nil {
		return true // let the reader judge
	}
	at := func(v string) bool { return bare(v) == f.Address }
	return (f.Namespace == "" || x.Namespace == f.Namespace || x.Info.Namespace == f.Namespace || inNamespace(x.Identity, f.Namespace)) &&
		(f.Name == "" || x.Name == f.Name || x.Info.Name == f.Name || x.Identity != "") &&
		(f.Node == "" || x.Node == f.Node) &&
		(f.Address == "" || slices.Contains(x.WorkloadIPs, f.Address) || slices.ContainsFunc(x.VIPs, at))
}

// inNamespace tells whether an identity is of a namespace.
func inNamespace(identity, namespace string) bool {
	return strings.Contains(identity, "/ns/"+namespace+"/")
}

// Join adds what another ztunnel of the mesh says of itself alone: its certificates and its pods. What all of them know
// is said once.
func (d *Dump) Join(other *Dump) error {
	d.Certificates = append(d.Certificates, other.Certificates...)
	if d.WorkloadState == nil {
		d.WorkloadState = map[string]Pod{}
	}
	maps.Copy(d.WorkloadState, other.WorkloadState)
	for _, key := range []string{"certificates", "workloadState"} {
		joined, err := json.Marshal(append(d.Only(key, Filter{}), other.Only(key, Filter{})...))
		if err != nil {
			return fmt.Errorf("join two dumps: %w", err)
		}
		d.Raw[key] = joined
	}
	return nil
}
