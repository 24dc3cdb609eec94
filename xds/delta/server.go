package delta

import (
	"iter"
	"maps"
	"slices"
	"strconv"

	"github.com/ambit-mesh/ambit/api/discovery"
)

// View is what one subscriber may see of a type.
type View interface {
	// Lookup finds a resource by its name or one of its aliases.
	Lookup(name string) (Resource, bool)
	// Names runs over the names of all resources.
	Names() iter.Seq[string]
}

// Server is the serving end for one subscriber of one type. It has one response outstanding at a time; changes in
// between coalesce by name.
type Server struct {
	typeURL  string
	began    bool
	all      bool                // subscribed to everything
	named    map[string]struct{} // subscribed by name or alias
	held     map[string]string   // resource name → version that the client was sent or said it has
	look     map[string]struct{} // names to look at again
	lookAll  bool
	asked    map[string]struct{} // named subscriptions not yet answered
	owes     bool                // a response is due even if it is empty
	nonce    uint64
	awaiting string
	status   Status
}

// Status tells how far a subscriber is.
type Status struct {
	// Sent and Acked are nonces; they are equal when the subscriber has taken everything in.
	Sent, Acked string
	// Nack is why the subscriber refused its last response; "" when it did not.
	Nack string
	// Outstanding tells that a response waits for its answer.
	Outstanding bool
	// Held is how many resources it has.
	Held int
}

// NewServer makes the machine for a type; nothing is subscribed yet.
func NewServer(typeURL string) *Server {
	return &Server{
		typeURL: typeURL, named: map[string]struct{}{}, held: map[string]string{},
		look: map[string]struct{}{}, asked: map[string]struct{}{},
	}
}

// Status reports how far the subscriber is.
func (s *Server) Status() Status {
	st := s.status
	st.Held, st.Outstanding = len(s.held), s.awaiting != ""
	return st
}

// Receive takes in a request: subscriptions, and an ACK or NACK of the outstanding response. A nonce that is not the
// outstanding one is stale and says nothing.
func (s *Server) Receive(r *Request) {
	if !s.began {
		s.began = true
		s.owes = true
		maps.Copy(s.held, r.GetInitialResourceVersions())
		for name := range s.held {
			s.look[name] = struct{}{}
		}
		if len(r.GetResourceNamesSubscribe()) == 0 && len(r.GetResourceNamesUnsubscribe()) == 0 {
			s.subscribeAll()
		}
	} else if s.awaiting != "" && r.GetResponseNonce() == s.awaiting {
		s.awaiting = ""
		s.status.Nack = ""
		if d := r.GetErrorDetail(); d != nil {
			s.status.Nack = d.GetMessage()
		} else {
			s.status.Acked = r.GetResponseNonce()
		}
	}
	for _, name := range r.GetResourceNamesSubscribe() {
		if name == wildcard {
			s.subscribeAll()
			continue
		}
		// A client that asks again by name has lost the resource (xDS protocol, "Subscribing to Resources").
		if _, again := s.named[name]; again {
			delete(s.held, name)
		}
		s.named[name] = struct{}{}
		s.asked[name] = struct{}{}
	}
	for _, name := range r.GetResourceNamesUnsubscribe() {
		if name == wildcard {
			s.all, s.lookAll = false, false
			continue
		}
		delete(s.named, name)
		delete(s.asked, name)
		if !s.all {
			delete(s.held, name)
		}
	}
}

func (s *Server) subscribeAll() { s.all, s.lookAll = true, true }

// Changed says that resources were added, changed or removed.
func (s *Server) Changed(names ...string) {
	for _, n := range names {
		s.look[n] = struct{}{}
	}
}

// Next makes the next response, or nil when there is nothing to say or one is still outstanding.
func (s *Server) Next(view View) *Response {
	if !s.began || s.awaiting != "" {
		return nil
	}
	resp := &Response{TypeUrl: s.typeURL}
	if s.lookAll {
		s.lookAll = false
		for name := range view.Names() {
			s.look[name] = struct{}{}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.asked)) {
		if r, ok := view.Lookup(name); ok {
			s.named[r.Name] = struct{}{} // a subscription by alias extends to the resource
			s.look[r.Name] = struct{}{}
		} else {
			delete(s.held, name)
			delete(s.look, name)
			resp.RemovedResources = append(resp.RemovedResources, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.look)) {
		s.answer(resp, view, name)
	}
	clear(s.asked)
	clear(s.look)
	if len(resp.Resources) == 0 && len(resp.RemovedResources) == 0 && !s.owes {
		return nil
	}
	s.owes = false
	s.nonce++
	resp.Nonce = strconv.FormatUint(s.nonce, 10)
	s.awaiting, s.status.Sent = resp.Nonce, resp.Nonce
	return resp
}

// answer adds one name to a response, if the subscriber wants it and does not have it.
func (s *Server) answer(resp *Response, view View, name string) {
	r, ok := view.Lookup(name)
	if !ok || r.Name != name || !s.wants(r) {
		if _, had := s.held[name]; had {
			delete(s.held, name)
			resp.RemovedResources = append(resp.RemovedResources, name)
		}
		return
	}
	if v, had := s.held[name]; had && v == r.Version {
		return
	}
	s.held[name] = r.Version
	resp.Resources = append(resp.Resources, &discovery.Resource{Name: r.Name, Aliases: r.Aliases, Version: r.Version, Resource: r.Body})
}

func (s *Server) wants(r Resource) bool {
	if s.all {
		return true
	}
	if _, ok := s.named[r.Name]; ok {
		return true
	}
	for _, a := range r.Aliases {
		if _, ok := s.named[a]; ok {
			return true
		}
	}
	return false
}
