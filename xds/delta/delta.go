// Package delta is the incremental discovery protocol as two state machines, without goroutine, clock or socket.
package delta

import (
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/ambit-mesh/ambit/api/discovery"
)

// Request and Response are the messages of the wire.
type (
	Request  = discovery.DeltaDiscoveryRequest
	Response = discovery.DeltaDiscoveryResponse
)

// Resource is one named, versioned value. Aliases are other names it can be asked for by.
type Resource struct {
	Name    string
	Aliases []string
	// With are names of other resources, which are of no use without this one: who asks for them is sent this one too.
	// They are not told.
	With    []string
	Version string
	Body    *anypb.Any
}

// wildcard subscribes to every resource of a type.
const wildcard = "*"

type set map[string]struct{}

func (s set) add(name string)      { s[name] = struct{}{} }
func (s set) has(name string) bool { _, ok := s[name]; return ok }
func (s set) remove(name string)   { delete(s, name) }
