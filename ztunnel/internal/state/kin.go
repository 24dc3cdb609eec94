package state

import (
	"slices"

	"github.com/ambit-mesh/ambit/identity"
)

// Kin is what the replicas of one thing have in common, and share. It is never written after it is made.
type Kin struct {
	Namespace, Network, Cluster      string
	Identity                         identity.ID
	HBONE                            bool // reached through a tunnel
	NativeTunnel                     bool // ends the tunnel itself
	HostNetwork                      bool
	Waypoint                         *Gateway
	NetworkGateway                   *Gateway
	AppTunnel                        *AppTunnel
	Kind, Owner                      string // what it is an instance of: "deployment" and its name
	CanonicalName, CanonicalRevision string
	Services                         []Membership // sorted by service
	Policies                         []string     // "namespace/name", those that select it

	expect []identity.ID // its own identity
}

func (k *Kin) equal(o *Kin) bool {
	apps := k.AppTunnel == o.AppTunnel || k.AppTunnel != nil && o.AppTunnel != nil && *k.AppTunnel == *o.AppTunnel
	return apps && k.Namespace == o.Namespace && k.Network == o.Network && k.Cluster == o.Cluster && k.Identity == o.Identity &&
		k.HBONE == o.HBONE && k.NativeTunnel == o.NativeTunnel && k.HostNetwork == o.HostNetwork &&
		k.Waypoint == o.Waypoint && k.NetworkGateway == o.NetworkGateway && k.Kind == o.Kind && k.Owner == o.Owner &&
		k.CanonicalName == o.CanonicalName && k.CanonicalRevision == o.CanonicalRevision &&
		slices.EqualFunc(k.Services, o.Services, Membership.equal) && slices.Equal(k.Policies, o.Policies)
}

func (m Membership) equal(o Membership) bool {
	return m.Service == o.Service && slices.Equal(m.Ports, o.Ports)
}

// kinship finds kin to share by what tells most of them apart. It forgets when it holds many.
type kinship map[[2]string]*Kin

func (s *kinship) of(k *Kin) *Kin {
	key := [2]string{k.Namespace, k.Owner}
	if known := (*s)[key]; known != nil && known.equal(k) {
		return known
	}
	if *s == nil || len(*s) >= maxWords {
		*s = kinship{}
	}
	(*s)[key] = k
	return k
}

// Place is where workloads run. It is shared.
type Place struct{ Region, Zone, Subzone string }

// places lets all workloads of a place share it.
type places map[Place]*Place

func (ps *places) of(p Place) *Place {
	if known := (*ps)[p]; known != nil {
		return known
	}
	if *ps == nil || len(*ps) >= maxWords {
		*ps = places{}
	}
	(*ps)[p] = &p
	return &p
}
