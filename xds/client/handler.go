package client

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/ambit-mesh/ambit/xds/delta"
)

// Handler takes in resources of one type. Make one with Handle.
type Handler struct {
	TypeURL string
	// OnDemand subscribes to nothing but what Client.Subscribe names; otherwise to everything.
	OnDemand bool
	apply    func([]delta.Resource, []string) (refused []string, err error)
}

// Item is a decoded resource.
type Item[T any] struct {
	Name string
	Body T
}

// Handle makes a handler of decoded messages. apply gets one response's changes as a batch, in order of arrival; an
// error refuses them (NACK) with its text, or only some of them if Refuse made it. A resource that does not decode is
// refused alone, the others are applied.
func Handle[T any, P interface {
	*T
	proto.Message
}](typeURL string, onDemand bool, apply func(upserts []Item[P], removes []string) error,
) Handler {
	return Handler{TypeURL: typeURL, OnDemand: onDemand, apply: func(rs []delta.Resource, removes []string) (refused []string, err error) {
		items := make([]Item[P], 0, len(rs))
		var bad []error
		for _, r := range rs {
			m := P(new(T))
			if u := r.Body.GetTypeUrl(); u != typeURL {
				bad = append(bad, fmt.Errorf("%s: body is %q", r.Name, u))
				refused = append(refused, r.Name)
				continue
			}
			if err := proto.Unmarshal(r.Body.GetValue(), m); err != nil {
				bad = append(bad, fmt.Errorf("%s: %w", r.Name, err))
				refused = append(refused, r.Name)
				continue
			}
			items = append(items, Item[P]{r.Name, m})
		}
		if err := apply(items, removes); err != nil {
			bad = append(bad, err)
			if some := (*refusal)(nil); errors.As(err, &some) {
				refused = append(refused, some.names...)
			} else {
				for _, i := range items {
					refused = append(refused, i.Name)
				}
			}
		}
		return refused, oneLine(bad)
	}}
}

// Refuse makes the error of a handler that has taken everything but the named resources.
func Refuse(why error, names ...string) error { return &refusal{why, names} }

type refusal struct {
	error
	names []string
}

func (r *refusal) Unwrap() error { return r.error }

// maxReason bounds what we send back of resources that we refuse.
const maxReason = 4 << 10

func oneLine(errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	var b strings.Builder
	for i, err := range errs {
		if b.Len() > maxReason {
			fmt.Fprintf(&b, "; and %d more", len(errs)-i)
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		text := err.Error()
		b.WriteString(strings.ToValidUTF8(text[:min(len(text), maxReason)], "?")) // protobuf strings are UTF-8
	}
	return errors.New(b.String())
}
