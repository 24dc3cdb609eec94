package state

import "fmt"

// why is a reason, which becomes text only when somebody reads it.
type why struct {
	cause  cause
	detail string
}

type cause uint8

const (
	known          cause = iota
	unknownAddress       // neither a service nor a workload
	registryOnly         // the same, where such are refused
	keepsAddress         // of a service whose clients choose the endpoint themselves
	noEndpoint           // of a service, that takes the connection
	noAddress            // of an endpoint's host name
	badService           // not understood
	badWorkload
	hasWaypoint
	noWaypoint // that takes the connection
	unanswered // by the control plane
)

func (y why) text(r Route) string {
	what := ""
	switch {
	case r.Service != nil:
		what = "service " + r.Service.key
		if r.Workload != nil && y.cause == known {
			what += ", endpoint " + r.Workload.UID
		}
	case r.Workload != nil:
		what = "workload " + r.Workload.UID
	}
	switch y.cause {
	case unknownAddress:
		return fmt.Sprintf("%s is neither a service nor a workload of the mesh", r.To.Addr())
	case registryOnly:
		return fmt.Sprintf("unknown destination: %s is neither a service nor a workload of the mesh, and others are not to be reached (REGISTRY_ONLY)", r.To.Addr())
	case keepsAddress:
		return what + " keeps the address that was dialled"
	case noEndpoint:
		return fmt.Sprintf("no healthy upstream: %s: %s", r.To, y.detail)
	case noAddress:
		return fmt.Sprintf("no address of endpoint %s, host %s: %s", r.Workload.UID, r.Resolve, y.detail)
	case badService:
		return fmt.Sprintf("%s is not understood: %s: update this proxy", what, r.Service.Problem)
	case badWorkload:
		return fmt.Sprintf("workload %s is not understood: %s: update this proxy", r.Workload.UID, r.Workload.Problem)
	case hasWaypoint:
		return what + " has waypoint " + r.Waypoint.key
	case noWaypoint:
		return fmt.Sprintf("unknown waypoint: %s: %s", r.Waypoint.key, y.detail)
	case unanswered:
		return fmt.Sprintf("unknown destination: %s: %s", r.To, y.detail)
	}
	if r.Kind == Plaintext {
		what += ", which has no tunnel"
	}
	return what
}
