package delta

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/ambit-mesh/ambit/api/discovery"
)

// View is what one subscriber may see of a type.
type View interface {
	// Lookup finds a resource by its name.
	Lookup(name string) (Resource, bool)
	// Aliased gives the names of the resources that have an alias, or go with a name.
	Aliased(alias string) []string
	// Names runs over the names of all resources.
	Names() iter.Seq[string]
}

// Server is the serving end for one subscriber of one type. It has one response outstanding at a time; changes in
// between coalesce by name. At rest the subscriber holds exactly the resources that it can see and that it has
// subscribed to by wildcard, by name or by an alias.
type Server struct {
	typeURL  string
	began    bool
	all      bool               // subscribed to everything
	named    set                // subscribed by name or alias
	names    int                // bytes in named
	held     map[string]holding // by resource name
	look     set                // resources to look at again
	lookAll  bool
	asked    map[string]bool // subscriptions to answer; true: even with what is held
	left     set             // subscriptions taken back, whose resources to look at again
	owes     bool            // a response is due even if it is empty
	nonce    uint64          // of the last response
	awaiting bool            // the last response waits for its answer
	acked    uint64
	nack     string
	refused  int // how many held resources are refused
}

// holding is a resource that the subscriber was sent, or that it said it has (nonce 0).
type holding struct {
	version string
	nonce   uint64
	refused bool
}

// maxNames bounds what a subscriber can make us remember, in bytes of names (SECURITY XD-07).
const maxNames = 8 << 20

// NewServer makes the machine for a type; nothing is subscribed yet.
func NewServer(typeURL string) *Server {
	return &Server{typeURL: typeURL, named: set{}, held: map[string]holding{}, look: set{}, asked: map[string]bool{}, left: set{}}
}

// Receive takes in a request: subscriptions, and an ACK or NACK of the outstanding response. A nonce that is not the
// outstanding one is stale and says nothing. An error means that the stream must end.
func (s *Server) Receive(r *Request) error {
	if t := r.GetTypeUrl(); t != s.typeURL {
		return fmt.Errorf("request is for %q, want %q", t, s.typeURL)
	}
	join, leave := r.GetResourceNamesSubscribe(), r.GetResourceNamesUnsubscribe()
	first := !s.began
	switch {
	case first:
		s.began, s.owes = true, true
		for name, version := range r.GetInitialResourceVersions() {
			s.held[name] = holding{version: version}
			s.look.add(name)
		}
		if len(join) == 0 && len(leave) == 0 {
			s.all, s.lookAll = true, true
		}
	case s.awaiting && r.GetResponseNonce() == s.nonceText():
		s.answered(r.GetErrorDetail())
	}
	for _, name := range join {
		if name == wildcard {
			s.all, s.lookAll = true, true
			continue
		}
		if s.named.has(name) {
			s.asked[name] = true
			continue
		}
		if s.names += len(name); s.names > maxNames {
			return fmt.Errorf("more than %d bytes of names are subscribed to", maxNames)
		}
		s.named.add(name)
		s.asked[name] = !first
	}
	for _, name := range leave {
		switch {
		case name == wildcard:
			s.all, s.lookAll = false, false
			for held := range s.held {
				s.look.add(held)
			}
		case s.named.has(name):
			s.names -= len(name)
			delete(s.named, name)
			delete(s.asked, name)
			s.left.add(name)
		}
	}
	return nil
}

func (s *Server) nonceText() string { return strconv.FormatUint(s.nonce, 10) }

// answered ends the wait for the last response. What was refused stays held, so that it is not sent again until it changes.
func (s *Server) answered(refusal *discovery.Status) {
	s.awaiting = false
	if refusal == nil {
		s.acked = s.nonce
		if s.refused == 0 {
			s.nack = ""
		}
		return
	}
	if s.nack = plain(refusal.GetMessage()); s.nack == "" {
		s.nack = "refused without a reason"
	}
	for name, h := range s.held {
		if h.nonce == s.nonce {
			h.refused = true
			s.held[name] = h
			s.refused++
		}
	}
}

// maxReason bounds what is kept of a reason, in bytes.
const maxReason = 1 << 10

// plain is a reason as it may be shown: it comes from a stranger.
func plain(reason string) string {
	cut := reason
	if len(cut) > maxReason {
		cut = cut[:maxReason]
	}
	cut = strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, cut)
	if cut = strings.TrimSpace(cut); len(reason) > maxReason {
		cut += " …"
	}
	return cut
}

// forget takes a resource from what the subscriber holds.
func (s *Server) forget(name string) (had bool) {
	h, had := s.held[name]
	if h.refused {
		s.refused--
	}
	delete(s.held, name)
	return had
}

// Changed says that resources were added, changed or removed.
func (s *Server) Changed(names ...string) {
	for _, n := range names {
		s.look.add(n)
	}
}

// Pending tells that there may be something to say once the outstanding response is answered.
func (s *Server) Pending() bool {
	return s.awaiting && (s.lookAll || len(s.look)+len(s.asked)+len(s.left) > 0)
}

// Next makes the next response, or nil when there is nothing to say or one is still outstanding.
func (s *Server) Next(view View) *Response {
	if !s.began || s.awaiting {
		return nil
	}
	resp := &Response{TypeUrl: s.typeURL}
	if s.lookAll {
		for name := range view.Names() {
			s.look.add(name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.asked)) {
		there := false
		for _, r := range s.resolve(view, name) {
			res, _ := view.Lookup(r)
			there = there || !slices.Contains(res.With, name)
			if s.asked[name] && !slices.Contains(res.With, name) {
				s.forget(r) // so that it is sent, though it was for another name: the client waits for an answer
			}
			s.look.add(r)
		}
		if !there {
			s.forget(name)
			s.look.remove(name)
			resp.RemovedResources = append(resp.RemovedResources, name)
		}
	}
	for name := range s.left {
		for _, r := range s.resolve(view, name) {
			s.look.add(r)
		}
		s.look.add(name)
	}
	for _, name := range slices.Sorted(maps.Keys(s.look)) {
		s.tell(resp, view, name)
	}
	s.lookAll = false
	clear(s.asked)
	clear(s.left)
	clear(s.look)
	if len(resp.Resources) == 0 && len(resp.RemovedResources) == 0 && !s.owes {
		return nil
	}
	s.owes, s.awaiting = false, true
	s.nonce++
	resp.Nonce = s.nonceText()
	return resp
}

// resolve gives the resources that a subscription means.
func (s *Server) resolve(view View, name string) []string {
	found := view.Aliased(name)
	if _, ok := view.Lookup(name); ok && !slices.Contains(found, name) {
		found = append(slices.Clip(found), name)
	}
	return found
}

// tell adds one resource to a response, if the subscriber wants it and does not have it, or has it no more.
func (s *Server) tell(resp *Response, view View, name string) {
	h, had := s.held[name]
	r, ok := view.Lookup(name)
	switch {
	case !ok || !s.wants(r):
		if s.forget(name) {
			resp.RemovedResources = append(resp.RemovedResources, name)
		}
	case !had || h.version != r.Version:
		s.forget(name)
		s.held[name] = holding{version: r.Version, nonce: s.nonce + 1}
		resp.Resources = append(resp.Resources, &discovery.Resource{Name: r.Name, Aliases: r.Aliases, Version: r.Version, Resource: r.Body})
	}
}

func (s *Server) wants(r Resource) bool {
	return s.all || s.named.has(r.Name) || slices.ContainsFunc(r.Aliases, s.named.has) || slices.ContainsFunc(r.With, s.named.has)
}
