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
	Workloads     []Workload     `json:"workloads"`
	Services      []Service      `json:"services"`
	Policies      []Policy       `json:"policies"`
	Certificates  []Certificates `json:"certificates"`
	WorkloadState map[string]Pod `json:"workloadState"`

	Raw map[string]json.RawMessage `json:"-"`
}

// Workload of the mesh.
type Workload struct {
	UID       string   `json:"uid"`
	Name      string   `json:"name"`
	Namespace string   `json:"namespace"`
	IPs       []string `json:"workloadIps"`
	Node      string   `json:"node"`
	Protocol  string   `json:"protocol"`
	Waypoint  *Gateway `json:"waypoint"`
}

// Gateway is a waypoint: "namespace/host" or "network/address".
type Gateway struct {
	Destination string `json:"destination"`
}

// Service of the mesh.
type Service struct {
	Name      string                     `json:"name"`
	Namespace string                     `json:"namespace"`
	Hostname  string                     `json:"hostname"`
	VIPs      []string                   `json:"vips"`
	Waypoint  *Gateway                   `json:"waypoint"`
	Endpoints map[string]json.RawMessage `json:"endpoints"`
}

// Policy of the mesh.
type Policy struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
	Scope     string `json:"scope"`
	Action    string `json:"action"`
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

// Only is one list of the dump with all its fields, as far as the filter leaves it.
func (d *Dump) Only(key string, f Filter) any {
	var list []json.RawMessage
	if json.Unmarshal(d.Raw[key], &list) == nil {
		return slices.DeleteFunc(append([]json.RawMessage{}, list...), func(raw json.RawMessage) bool { return !f.keeps(raw) })
	}
	var byName map[string]json.RawMessage
	if json.Unmarshal(d.Raw[key], &byName) != nil {
		return d.Raw[key]
	}
	maps.DeleteFunc(byName, func(_ string, raw json.RawMessage) bool { return !f.keeps(raw) })
	return byName
}

// keeps tells whether a workload, service, policy, certificate or pod passes the filter.
func (f Filter) keeps(raw json.RawMessage) bool {
	var x struct {
		Namespace   string   `json:"namespace"`
		Node        string   `json:"node"`
		Identity    string   `json:"identity"`
		WorkloadIPs []string `json:"workloadIps"`
		VIPs        []string `json:"vips"`
		Info        struct {
			Namespace string `json:"namespace"`
		} `json:"info"`
	}
	if json.Unmarshal(raw, &x) != nil {
		return true // let the reader judge
	}
	at := func(v string) bool { return bare(v) == f.Address }
	return (f.Namespace == "" || x.Namespace == f.Namespace || x.Info.Namespace == f.Namespace || strings.Contains(x.Identity, "/ns/"+f.Namespace+"/")) &&
		(f.Node == "" || x.Node == f.Node) &&
		(f.Address == "" || slices.Contains(x.WorkloadIPs, f.Address) || slices.ContainsFunc(x.VIPs, at))
}
