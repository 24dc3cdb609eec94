package gateway

import (
	"encoding/json"
	"maps"
	"slices"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// Dump is what a gateway has in force, for people who look into it. Of secrets it holds the names alone.
type Dump struct {
	Listeners []json.RawMessage `json:"listeners"`
	Routes    []json.RawMessage `json:"routes"`
	Backends  []json.RawMessage `json:"backends"`
	Secrets   []string          `json:"secrets"`
}

// Dump tells what is in force now.
func (g *Gateway) Dump() Dump {
	t := g.current.Load()
	d := Dump{Secrets: slices.Sorted(maps.Keys(t.Secrets))}
	add := func(to *[]json.RawMessage, m proto.Message) {
		b, err := protojson.Marshal(m)
		if err != nil {
			g.c.Log.Error("resource cannot be shown", "error", err)
			return
		}
		*to = append(*to, b)
	}
	for _, p := range t.Ports {
		for _, l := range p.Listeners {
			add(&d.Listeners, l.Listener)
		}
	}
	for _, r := range t.Routes {
		add(&d.Routes, r)
	}
	for _, name := range slices.Sorted(maps.Keys(t.Backends)) {
		add(&d.Backends, t.Backends[name])
	}
	return d
}
