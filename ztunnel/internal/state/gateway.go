package state

import (
	"fmt"
	"net/netip"

	"github.com/ambit-mesh/ambit/api/workload"
	"github.com/ambit-mesh/ambit/mesh"
)

// Gateway is a waypoint or a network's gateway: by host name, or else by address.
type Gateway struct {
	Namespace, Hostname string
	Network             string
	Addr                netip.Addr
	Port                uint16

	key string // "namespace/hostname" or "network/address"
}

func (g *Gateway) String() string { return g.key }

// WeightedGateway is one of several waypoints that share the connections to a service.
type WeightedGateway struct {
	*Gateway
	Weight uint32
}

func (p *parser) gateway(g *workload.GatewayAddress) (*Gateway, error) {
	if g == nil {
		return nil, nil
	}
	// What cannot be read still is a gateway: whatever is behind it must not be reached around it.
	out := &Gateway{Port: uint16(g.GetHboneMtlsPort()), key: "?"}
	if g.GetHboneMtlsPort() > 65535 {
		return out, fmt.Errorf("port %d is above 65535", g.GetHboneMtlsPort())
	}
	if out.Port == 0 {
		out.Port = mesh.PortHBONE
	}
	switch d := g.GetDestination().(type) {
	case *workload.GatewayAddress_Hostname:
		out.Namespace, out.Hostname = p.words.of(d.Hostname.GetNamespace()), p.words.of(d.Hostname.GetHostname())
		out.key = p.words.of(out.Namespace + "/" + out.Hostname)
	case *workload.GatewayAddress_Address:
		a, ok := netip.AddrFromSlice(d.Address.GetAddress())
		if !ok {
			return out, fmt.Errorf("an address of %d bytes", len(d.Address.GetAddress()))
		}
		out.Network, out.Addr = p.words.of(d.Address.GetNetwork()), a.Unmap()
		out.key = p.words.of(out.Network + "/" + out.Addr.String())
	default:
		return out, fmt.Errorf("neither a host name nor an address")
	}
	return p.gateways.of(out), nil
}

// gateways lets all that have one gateway share it.
type gateways map[Gateway]*Gateway

func (gs *gateways) of(g *Gateway) *Gateway {
	if known, ok := (*gs)[*g]; ok {
		return known
	}
	if *gs == nil || len(*gs) >= maxWords {
		*gs = gateways{}
	}
	(*gs)[*g] = g
	return g
}
