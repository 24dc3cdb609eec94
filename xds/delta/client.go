package delta

import (
	"maps"
	"slices"

	"github.com/ambit-mesh/ambit/api/discovery"
)

// Client is the subscribing end for one type. It outlives streams: a new one resumes from what it holds.
type Client struct {
	typeURL  string
	onDemand bool
	began    bool // on the present stream
	named    map[string]struct{}
	pending  map[string]struct{} // of named, those that nothing was heard of
	versions map[string]string
	join     []string // to subscribe
	leave    []string // to unsubscribe
	answers  []*Request
}

// NewClient makes the machine for a type. onDemand subscribes to nothing but what Subscribe names.
func NewClient(typeURL string, onDemand bool) *Client {
	return &Client{typeURL: typeURL, onDemand: onDemand, named: map[string]struct{}{}, pending: map[string]struct{}{}, versions: map[string]string{}}
}

// Reset forgets the stream, not what it brought: the next request begins another one.
func (c *Client) Reset() {
	c.began = false
	c.join, c.leave, c.answers = slices.Sorted(maps.Keys(c.pending)), nil, nil
}

// Subscribe asks for resources by name or alias; those already asked for do nothing.
func (c *Client) Subscribe(names ...string) {
	for _, n := range names {
		if _, ok := c.named[n]; !ok {
			c.named[n], c.pending[n] = struct{}{}, struct{}{}
			c.join = append(c.join, n)
		}
	}
}

// Unsubscribe takes Subscribe back.
func (c *Client) Unsubscribe(names ...string) {
	for _, n := range names {
		if _, ok := c.named[n]; ok {
			delete(c.named, n)
			delete(c.pending, n)
			delete(c.versions, n)
			c.join = slices.DeleteFunc(c.join, func(x string) bool { return x == n })
			c.leave = append(c.leave, n)
		}
	}
}

// Receive takes in a response. The caller then calls Ack or Nack with its nonce.
func (c *Client) Receive(r *Response) (upsert []Resource, remove []string) {
	for _, res := range r.GetResources() {
		c.versions[res.GetName()] = res.GetVersion()
		delete(c.pending, res.GetName())
		for _, a := range res.GetAliases() {
			delete(c.pending, a)
		}
		upsert = append(upsert, Resource{Name: res.GetName(), Aliases: res.GetAliases(), Version: res.GetVersion(), Body: res.GetResource()})
	}
	for _, name := range r.GetRemovedResources() {
		delete(c.versions, name)
		delete(c.pending, name)
		remove = append(remove, name)
	}
	return upsert, remove
}

// Ack accepts a response.
func (c *Client) Ack(nonce string) {
	c.answers = append(c.answers, &Request{TypeUrl: c.typeURL, ResponseNonce: nonce})
}

// Nack refuses a response, or the named resources of it while the others were taken.
func (c *Client) Nack(nonce string, why string, refused ...string) {
	for _, n := range refused {
		// A version that nobody has: a new stream brings the resource again if it is still there, and its removal if it
		// is not, so that an older version that stayed in force here does not outlive it.
		c.versions[n] = ""
	}
	c.answers = append(c.answers, &Request{
		TypeUrl: c.typeURL, ResponseNonce: nonce,
		ErrorDetail: &discovery.Status{Code: 3 /* INVALID_ARGUMENT */, Message: why},
	})
}

// Next makes the next request, or nil when there is nothing to say.
func (c *Client) Next() *Request {
	switch {
	case !c.began:
		c.began = true
		r := &Request{TypeUrl: c.typeURL, InitialResourceVersions: maps.Clone(c.versions)}
		if c.onDemand {
			// What is still waited for is asked for anew after this: of a name in this request the server need not send
			// what we say we hold, be it for another name.
			held := maps.Clone(c.named)
			maps.DeleteFunc(held, func(n string, _ struct{}) bool { _, waits := c.pending[n]; return waits })
			r.ResourceNamesSubscribe = append([]string{wildcard}, slices.Sorted(maps.Keys(held))...)
			r.ResourceNamesUnsubscribe = []string{wildcard}
		}
		c.leave = nil
		return r
	case len(c.answers) > 0:
		r := c.answers[0]
		c.answers = c.answers[1:]
		return r
	case len(c.join) > 0 || len(c.leave) > 0:
		r := &Request{TypeUrl: c.typeURL, ResourceNamesSubscribe: c.join, ResourceNamesUnsubscribe: c.leave}
		c.join, c.leave = nil, nil
		return r
	}
	return nil
}
