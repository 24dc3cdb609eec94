// Package explain is what a ztunnel answers to those who ask why: the values of its /explain and /last pages.
package explain

import "time"

// Outbound is what the source's ztunnel would do with a connection.
type Outbound struct {
	// Captured says that this ztunnel serves the source; else its connections go where they dial, as plain text.
	Captured bool `json:"captured"`
	// Source is the uid of the source's workload, Identity its identity, and Certificate the state of its certificate.
	Source      string `json:"source"`
	Address     string `json:"address"`
	Identity    string `json:"identity"`
	Certificate string `json:"certificate,omitempty"`
	// Dialled is the address and port, Service ("namespace/host") what it stands for.
	Dialled string `json:"dialled"`
	Service string `json:"service,omitempty"`
	// Kind is HBONE, Plaintext, Passthrough or Refuse; Type says it in the words of the access log; Why explains it.
	Kind string `json:"kind"`
	Type string `json:"type,omitempty"`
	Why  string `json:"why"`
	// Waypoint ("namespace/host" or "network/address") is the one that the connection has to pass.
	Waypoint string `json:"waypoint,omitempty"`
	// Hop and Expect are the next machine of a tunnel and the identities that it may have.
	Hop    string   `json:"hop,omitempty"`
	Expect []string `json:"expect,omitempty"`
	// Endpoints are those among which chance decides.
	Endpoints []Endpoint `json:"endpoints,omitempty"`
}

// Endpoint is where a connection may end.
type Endpoint struct {
	UID       string `json:"uid"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Node      string `json:"node"`
	Address   string `json:"address"` // or its host name, with the port behind the service's
	Identity  string `json:"identity"`
	HBONE     bool   `json:"hbone"`
}

// Inbound is what the destination's ztunnel would do with a connection.
type Inbound struct {
	// Captured says that this ztunnel serves the destination; else nothing enforces its policies.
	Captured bool     `json:"captured"`
	Workload string   `json:"workload"`
	Peer     string   `json:"peer,omitempty"` // the proved identity
	Policies []Policy `json:"policies"`
	Allow    bool     `json:"allow"`
	// Policy names the policies that decided, Reason is what the access log says and Why explains it.
	Policy string `json:"policy,omitempty"`
	Reason string `json:"reason,omitempty"`
	Why    string `json:"why"`
}

// Policy is what one policy says of a connection.
type Policy struct {
	Name    string `json:"name"`
	Action  string `json:"action"`
	DryRun  bool   `json:"dryRun,omitempty"`
	Matched bool   `json:"matched"`
	Why     string `json:"why"`
}

// Failure is a connection that was refused or broke.
type Failure struct {
	Time       time.Time `json:"time"`
	Direction  string    `json:"direction"`
	Source     string    `json:"source"` // "namespace/name", or its address
	SourceAddr string    `json:"sourceAddr"`
	Identity   string    `json:"identity,omitempty"` // the source's, if proved
	Dest       string    `json:"dest"`
	DestAddr   string    `json:"destAddr"`
	Service    string    `json:"service,omitempty"`
	Error      string    `json:"error"`
	Policy     string    `json:"policy,omitempty"`
	Why        string    `json:"why,omitempty"`
}
