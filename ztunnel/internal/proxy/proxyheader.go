package proxy

import (
	"encoding/binary"
	"net/netip"

	"github.com/ambit-mesh/ambit/identity"
)

// tlvPrincipal is the type under which Istio puts the client's identity into a PROXY header (WIRE 2.11).
const tlvPrincipal = 0xD0

// proxyHeader is what precedes a connection for an application that wants to know whose it is and where it was to go:
// version 2 of the PROXY protocol. Addresses of two families are both written as IPv6.
func proxyHeader(from, to netip.AddrPort, peer identity.ID) []byte {
	b := append(make([]byte, 0, 128), "\r\n\r\n\x00\r\nQUIT\n"...)
	b = append(b, 0x21) // version 2, a connection of somebody else's
	src, dst := from.Addr(), to.Addr()
	family := byte(0x11)
	if src.Is6() || dst.Is6() {
		family = 0x21
		a, c := src.As16(), dst.As16()
		src, dst = netip.AddrFrom16(a), netip.AddrFrom16(c)
	}
	b = append(b, family, 0, 0) // the length follows
	b = append(append(b, src.AsSlice()...), dst.AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, from.Port())
	b = binary.BigEndian.AppendUint16(b, to.Port())
	if id := peer.String(); id != "" {
		b = append(b, tlvPrincipal)
		b = binary.BigEndian.AppendUint16(b, uint16(len(id))) // at most 2048
		b = append(b, id...)
	}
	binary.BigEndian.PutUint16(b[14:], uint16(len(b)-16))
	return b
}
