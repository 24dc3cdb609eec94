// Package dns answers the DNS queries of a pod with the names of the mesh, and passes on the rest.
package dns

import (
	"net/netip"
	"strings"
)

// Names is what the mesh knows of host names, which are in lower case and without a dot at the end.
type Names interface {
	// Named gives the addresses of a name as clients of a namespace see it, and whether the mesh knows it.
	Named(host, namespace string) ([]netip.Addr, bool)
}

// client is who asks.
type client struct {
	Namespace string
	Domain    string // of the cluster
}

// found is what a question's name stands for.
type found struct {
	Addrs []netip.Addr
	// Alias is the name that the addresses belong to, where the question's name is that one under a search domain of
	// the client; else it is empty.
	Alias string
}

// Known gives the addresses that a pod of a namespace would be answered for a name, and false for one that resolvers
// outside would be asked for.
func Known(c Config, namespace, name string) ([]netip.Addr, bool) {
	f, ok := lookup(c.Names, client{Namespace: namespace, Domain: c.defaults().Domain}, name)
	return f.Addrs, ok
}

// lookup tries what a name may mean, in the order in which a pod's own resolver would find it: the name itself, the
// name completed to a service's, the name without a search domain that the resolver has added. Each is also tried as
// part of a wildcard. It gives false for a name that the mesh does not know.
func lookup(names Names, c client, name string) (found, bool) {
	for _, try := range tries(c, strings.ToLower(strings.TrimSuffix(name, "."))) {
		for i, host := range wildcards(try.name) {
			addrs, ok := names.Named(host, c.Namespace)
			switch {
			case !ok:
			case i > 0:
				return found{Addrs: addrs}, true // a wildcard is no name to point to
			default:
				return found{Addrs: addrs, Alias: try.alias}, true
			}
		}
	}
	return found{}, false
}

// try is a name to look for, and the alias to answer with if it is that.
type try struct{ name, alias string }

func tries(c client, name string) []try {
	out := []try{{name: name}}
	add := func(name, alias string) {
		for _, t := range out {
			if t.name == name {
				return
			}
		}
		out = append(out, try{name, alias})
	}
	for _, full := range completions(c, name) {
		add(full, "")
	}
	for _, domain := range []string{c.Namespace + ".svc." + c.Domain, "svc." + c.Domain, c.Domain} {
		short, ok := strings.CutSuffix(name, "."+domain)
		if !ok {
			continue
		}
		add(short, short)
		for _, full := range completions(c, short) {
			add(full, short)
		}
	}
	return out
}

// completions are the full names that a short one may be, of a service: name, name.namespace or name.namespace.svc; and
// of a pod with a name of its own, which is one label longer.
func completions(c client, name string) []string {
	inNamespace, inServices := c.Namespace+".svc."+c.Domain, "svc."+c.Domain
	ofService := strings.HasSuffix(name, ".svc")
	switch {
	case name == "":
		return nil
	case strings.Count(name, ".") == 0:
		return []string{name + "." + inNamespace}
	case strings.Count(name, ".") == 1:
		return []string{name + "." + inServices, name + "." + inNamespace}
	case strings.Count(name, ".") == 2 && ofService:
		return []string{name + "." + c.Domain, name + "." + inServices}
	case strings.Count(name, ".") == 2:
		return []string{name + "." + inServices}
	case strings.Count(name, ".") == 3 && ofService:
		return []string{name + "." + c.Domain}
	}
	return nil
}

// wildcards are a name and the wildcards that cover it, the narrowest first.
func wildcards(name string) []string {
	out := []string{name}
	for {
		_, parent, ok := strings.Cut(name, ".")
		if !ok || parent == "" {
			return out
		}
		out = append(out, "*."+parent)
		name = parent
	}
}
