package capture

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/ambit-mesh/ambit/linux/nft"
	"github.com/ambit-mesh/ambit/mesh"
)

// Source is where probes seem to come from, so that pods' rules can let them pass. The zero value is addresses that are nobody's.
//
// Networks that do not route by the kernel's tables lose answers to those. Then it is the node's own address, which is not enough: who
// calls a pod by a node port seems to come from there too. So it is with ports from which only root connects, and the node drops what has
// both and was not sent by kubelet's user on the node itself.
type Source struct{ V4, V6 netip.Addr }

// The ports of probes from the node's own address. Others that translate addresses keep to ports from 1024 on, unless a caller's own was
// below.
const (
	probePortFirst = 512
	probePortLast  = 1023
)

// Words for a source.
const (
	sourceLinkLocal = "link-local"
	sourceNode      = "node"
)

// ParseSource reads link-local (or nothing), node, or addresses by comma. node are the node's own, by comma.
func ParseSource(word, node string) (Source, error) {
	switch word {
	case "", sourceLinkLocal:
		return Source{}, nil
	case sourceNode:
		if word = node; word == "" {
			return Source{}, errors.New("the node's addresses are not known")
		}
	}
	var s Source
	for one := range strings.SplitSeq(word, ",") {
		a, err := netip.ParseAddr(strings.TrimSpace(one))
		if err != nil {
			return Source{}, fmt.Errorf("want %s, %s or addresses: %w", sourceLinkLocal, sourceNode, err)
		}
		a = a.Unmap().WithZone("")
		into := &s.V4
		if a.Is6() {
			into = &s.V6
		}
		switch {
		case a.IsUnspecified() || a.IsLoopback() || a.IsMulticast():
			return Source{}, fmt.Errorf("probes cannot come from %s", a)
		case into.IsValid():
			return Source{}, fmt.Errorf("%s and %s are of one family", *into, a)
		}
		*into = a
	}
	return s, nil
}

// addr is the address of a family; own says that others use it as well, and that the ports count.
func (s Source) addr(v6 bool) (a netip.Addr, own bool) {
	switch {
	case v6 && s.V6.IsValid():
		return s.V6, true
	case v6:
		return netip.MustParseAddr(mesh.ProbeSourceV6), false
	case s.V4.IsValid():
		return s.V4, true
	}
	return netip.MustParseAddr(mesh.ProbeSourceV4), false
}

// matches tell a probe, or what pretends to be one.
func (s Source) matches(v6 bool) []nft.Match {
	a, own := s.addr(v6)
	m := []nft.Match{nft.Saddr(nft.Host(a)), nft.TCP()}
	if own {
		m = append(m, nft.Sports(probePortFirst, probePortLast))
	}
	return m
}

// give makes a connection a probe.
func (s Source) give(v6 bool) nft.Action {
	a, own := s.addr(v6)
	if own {
		return nft.SNATPorts(a, probePortFirst, probePortLast)
	}
	return nft.SNAT(a)
}
