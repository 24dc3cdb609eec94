package table

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/ambit-mesh/ambit/api/l7"
)

// Builder keeps the resources in force and makes tables of them. A resource that cannot be compiled is refused and
// leaves the one before it in force. The zero value is not usable; see NewBuilder.
type Builder struct {
	listeners map[string]*listener
	routes    map[string]*Host // as last received
	live      map[string]*Host // as in the last table
	backends  map[string]*l7.Backend
	leaving   map[string]bool // backends that were removed while a route still led to them
	secrets   map[string]*l7.Secret
}

// listener is one as it was received, and its rules for whole connections.
type listener struct {
	*l7.Listener
	at      netip.AddrPort
	streams []*Stream
}

// NewBuilder makes an empty builder.
func NewBuilder() *Builder {
	return &Builder{
		listeners: map[string]*listener{}, routes: map[string]*Host{}, live: map[string]*Host{},
		backends: map[string]*l7.Backend{}, leaving: map[string]bool{}, secrets: map[string]*l7.Secret{},
	}
}

// SetListener adds or replaces a listener.
func (b *Builder) SetListener(l *l7.Listener) error {
	if l.GetPort() == 0 || l.GetPort() > 65535 {
		return fmt.Errorf("listener %s: port %d is not a port", l.GetName(), l.GetPort())
	}
	at, err := bind(l)
	if err != nil {
		return err
	}
	switch l.GetProtocol() {
	case l7.Protocol_HTTP, l7.Protocol_TCP, l7.Protocol_TLS_PASSTHROUGH:
	case l7.Protocol_HTTPS, l7.Protocol_TLS_TERMINATE:
		if len(l.GetTls().GetSecrets()) == 0 {
			return fmt.Errorf("listener %s: TLS without a secret", l.GetName())
		}
	default:
		return fmt.Errorf("listener %s: protocol %s is not served by this proxy", l.GetName(), l.GetProtocol())
	}
	streams, err := compileStreams(l.GetStreams())
	if err != nil {
		return fmt.Errorf("listener %s: %w", l.GetName(), err)
	}
	b.listeners[l.GetName()] = &listener{l, at, streams}
	return nil
}

// SetRoute adds or replaces a route.
func (b *Builder) SetRoute(r *l7.Route) error {
	h, err := compile(r)
	if err != nil {
		return fmt.Errorf("route %s: %w", r.GetName(), err)
	}
	b.routes[r.GetName()] = h
	return nil
}

// SetBackend adds or replaces a backend.
func (b *Builder) SetBackend(x *l7.Backend) {
	b.backends[x.GetName()] = x
	delete(b.leaving, x.GetName())
}

// SetSecret adds or replaces a secret.
func (b *Builder) SetSecret(s *l7.Secret) { b.secrets[s.GetName()] = s }

// RemoveListener forgets a listener.
func (b *Builder) RemoveListener(name string) { delete(b.listeners, name) }

// RemoveRoute forgets a route.
func (b *Builder) RemoveRoute(name string) { delete(b.routes, name) }

// RemoveBackend forgets a backend, once no route leads to it any more.
func (b *Builder) RemoveBackend(name string) { b.leaving[name] = true }

func (b *Builder) complete(h *Host) bool {
	for _, name := range h.backends {
		if b.backends[name] == nil {
			return false
		}
	}
	return true
}

// settle decides which routes are in force. Resources of different types come in any order: a route that leads to a
// backend not yet received waits, and the one before it stays; a backend is kept as long as a route leads to it.
func (b *Builder) settle() {
	live := make(map[string]*Host, len(b.routes))
	used := map[string]bool{}
	for name, h := range b.routes {
		if old := b.live[name]; old != nil && !b.complete(h) {
			h = old
		}
		live[name] = h
		for _, x := range h.backends {
			used[x] = true
		}
	}
	for _, l := range b.listeners {
		for _, s := range l.streams {
			for _, d := range s.To {
				used[d.GetBackend()] = true
			}
		}
	}
	b.live = live
	for name := range b.leaving {
		if !used[name] {
			delete(b.backends, name)
			delete(b.leaving, name)
		}
	}
}

// RemoveSecret forgets a secret.
func (b *Builder) RemoveSecret(name string) { delete(b.secrets, name) }

// Build makes a table of what is in force now.
func (b *Builder) Build() *Table {
	b.settle()
	t := &Table{Backends: make(map[string]*l7.Backend, len(b.backends)), Secrets: make(map[string]*l7.Secret, len(b.secrets))}
	for n, x := range b.backends {
		t.Backends[n] = x
	}
	for n, x := range b.secrets {
		t.Secrets[n] = x
	}
	sets := map[string]*Set{}
	for _, name := range sortedKeys(b.live) {
		h := b.live[name]
		t.Routes = append(t.Routes, h.Resource)
		s := sets[h.set]
		if s == nil {
			s = &Set{exact: map[string]*Host{}}
			sets[h.set] = s
		}
		s.add(h)
	}
	for _, s := range sets {
		slices.SortStableFunc(s.wildcard, func(x, y wildcard) int { return cmp.Compare(len(y.suffix), len(x.suffix)) })
	}
	ports := map[netip.AddrPort]*Port{}
	for _, name := range sortedKeys(b.listeners) {
		l := b.listeners[name]
		p := ports[l.at]
		if p == nil {
			p = &Port{Addr: l.at, Protocol: Class(l.GetProtocol())}
			ports[l.at] = p
			t.Ports = append(t.Ports, p)
		}
		if p.Protocol != Class(l.GetProtocol()) {
			continue // the control plane gives a port one protocol; the first one stays
		}
		p.Listeners = append(p.Listeners, &Listener{
			Listener: l.Listener, Secrets: b.secretsOf(l.Listener), Set: sets[l.GetRoutes()], Streams: l.streams,
		})
	}
	slices.SortFunc(t.Ports, func(x, y *Port) int { return x.Addr.Compare(y.Addr) })
	return t
}

// secretsOf are those of a listener that have come.
func (b *Builder) secretsOf(l *l7.Listener) []*l7.Secret {
	var have []*l7.Secret
	for _, name := range l.GetTls().GetSecrets() {
		if s := b.secrets[name]; s != nil {
			have = append(have, s)
		}
	}
	return have
}

func bind(l *l7.Listener) (netip.AddrPort, error) {
	addr := netip.IPv6Unspecified()
	if l.GetBind() != "" {
		a, err := netip.ParseAddr(l.GetBind())
		if err != nil {
			return netip.AddrPort{}, fmt.Errorf("listener %s: bind address: %w", l.GetName(), err)
		}
		addr = a
	}
	return netip.AddrPortFrom(addr, uint16(l.GetPort())), nil
}

func sortedKeys[T any](m map[string]T) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
