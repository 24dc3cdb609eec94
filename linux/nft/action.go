package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Action is what a rule does to a packet.
type Action struct {
	text    string
	family  Family // IPv4 or IPv6 if only packets of that family can be given it, else INet
	build   func(t compiled) []expr.Any
	targets []netip.AddrPort // of a DNAT to one of several
}

func fixed(e ...expr.Any) func(compiled) []expr.Any { return func(compiled) []expr.Any { return e } }

func verdict(text string, kind expr.VerdictKind, chain string) Action {
	return Action{text: text, build: fixed(&expr.Verdict{Kind: kind, Chain: chain})}
}

// Accept lets the packet pass this chain; chains of other tables still see it.
func Accept() Action { return verdict("accept", expr.VerdictAccept, "") }

// Drop ends the packet silently.
func Drop() Action { return verdict("drop", expr.VerdictDrop, "") }

// Return goes back to the chain that jumped here.
func Return() Action { return verdict("return", expr.VerdictReturn, "") }

// Jump goes through another chain of the table, then continues.
func Jump(chain string) Action { return verdict("jump "+chain, expr.VerdictJump, chain) }

// Reject ends the packet and tells its sender that the port is unreachable.
func Reject() Action {
	return Action{text: "reject", build: fixed(&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH})}
}

// RejectReset ends a TCP segment with a reset to its sender.
func RejectReset() Action {
	return Action{text: "reject with tcp reset", build: fixed(&expr.Reject{Type: unix.NFT_REJECT_TCP_RST})}
}

// NoTrack keeps the packet out of connection tracking; only before PriorityRaw's end.
func NoTrack() Action { return Action{text: "notrack", build: fixed(&expr.Notrack{})} }

// SetMark sets the packet's mark.
func SetMark(value uint32) Action {
	return Action{text: fmt.Sprintf("meta mark set %#x", value), build: fixed(
		&expr.Immediate{Register: reg, Data: host32(value)},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: reg})}
}

// SetMarkBits sets the packet's mark in the bits of mask and keeps the others.
func SetMarkBits(value, mask uint32) Action {
	return Action{text: fmt.Sprintf("meta mark set meta mark & %#x | %#x", ^mask, value&mask), build: fixed(
		metaMark(), bits(value, mask), &expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: reg})}
}

// SetCTMarkBits sets the connection's mark in the bits of mask and keeps the others.
func SetCTMarkBits(value, mask uint32) Action {
	return Action{text: fmt.Sprintf("ct mark set ct mark & %#x | %#x", ^mask, value&mask), build: fixed(
		ctMark(), bits(value, mask), &expr.Ct{Key: expr.CtKeyMARK, SourceRegister: true, Register: reg})}
}

func bits(value, mask uint32) expr.Any {
	return &expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: host32(^mask), Xor: host32(value & mask)}
}

// MarkFromCT gives the packet its connection's mark.
func MarkFromCT() Action {
	return Action{text: "meta mark set ct mark", build: fixed(
		ctMark(), &expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: reg})}
}

// SetCTZone puts the packet's connection into a conntrack zone; only before connection tracking.
func SetCTZone(zone uint16) Action {
	return Action{text: fmt.Sprintf("ct zone set %d", zone), build: fixed(
		&expr.Immediate{Register: reg, Data: binary.NativeEndian.AppendUint16(nil, zone)},
		&expr.Ct{Key: expr.CtKeyZONE, SourceRegister: true, Register: reg})}
}

// Redirect sends the connection to a port of this namespace.
func Redirect(port uint16) Action {
	return Action{text: fmt.Sprintf("redirect to :%d", port), build: fixed(
		&expr.Immediate{Register: reg, Data: binary.BigEndian.AppendUint16(nil, port)},
		&expr.Redir{RegisterProtoMin: reg, RegisterProtoMax: reg, Flags: unix.NF_NAT_RANGE_PROTO_SPECIFIED})}
}

// Masquerade gives the connection the address of the interface that it leaves by.
func Masquerade() Action { return Action{text: "masquerade", build: fixed(&expr.Masq{})} }

// SNAT gives the connection another source address.
func SNAT(a netip.Addr) Action {
	f := familyOf(a)
	return Action{text: fmt.Sprintf("snat %s to %s", f, a), family: f, build: fixed(
		&expr.Immediate{Register: reg, Data: a.AsSlice()},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: natFamily(f), RegAddrMin: reg, RegAddrMax: reg})}
}

// SNATPorts gives the connection another source address, and a port from first to last.
func SNATPorts(a netip.Addr, first, last uint16) Action {
	f, low, high := familyOf(a), uint32(regAfterV4), uint32(regAfterPortV4)
	if f == IPv6 {
		low, high = regAfterV6, regAfterPortV6
	}
	return Action{text: fmt.Sprintf("snat %s to %s", f, netip.AddrPortFrom(a, first)) + fmt.Sprintf("-%d", last), family: f, build: fixed(
		&expr.Immediate{Register: reg, Data: a.AsSlice()},
		&expr.Immediate{Register: low, Data: binary.BigEndian.AppendUint16(nil, first)},
		&expr.Immediate{Register: high, Data: binary.BigEndian.AppendUint16(nil, last)},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: natFamily(f), RegAddrMin: reg, RegAddrMax: reg, RegProtoMin: low, RegProtoMax: high})}
}

// Registers after an address in register 1: of 4 and of 16 bytes; and those after them.
const (
	regAfterV4     = unix.NFT_REG32_01
	regAfterV6     = unix.NFT_REG_2
	regAfterPortV4 = unix.NFT_REG32_02
	regAfterPortV6 = unix.NFT_REG_3
)

// DNAT sends the connection to the target, or to one of several by chance. All are of one family.
func DNAT(to ...netip.AddrPort) Action {
	var words []string
	a := Action{targets: to}
	for _, t := range to {
		words = append(words, t.String())
	}
	if len(to) == 0 {
		a.text, a.build = "dnat to nothing", func(t compiled) []expr.Any {
			t.fail(errors.New("dnat without a target"))
			return nil
		}
		return a
	}
	a.family = familyOf(to[0].Addr())
	port := uint32(regAfterV4)
	if a.family == IPv6 {
		port = regAfterV6
	}
	nat := &expr.NAT{
		Type: expr.NATTypeDestNAT, Family: natFamily(a.family),
		RegAddrMin: reg, RegAddrMax: reg, RegProtoMin: port, RegProtoMax: port,
	}
	if len(to) == 1 {
		a.text, a.targets = fmt.Sprintf("dnat %s to %s", a.family, words[0]), nil
		a.build = fixed(
			&expr.Immediate{Register: reg, Data: to[0].Addr().AsSlice()},
			&expr.Immediate{Register: port, Data: binary.BigEndian.AppendUint16(nil, to[0].Port())},
			nat)
		return a
	}
	a.text = fmt.Sprintf("dnat %s to numgen random mod %d map { %s }", a.family, len(to), strings.Join(words, ", "))
	a.build = fixed(&expr.Numgen{Register: reg, Modulus: uint32(len(to)), Type: unix.NFT_NG_RANDOM}, nil /* the lookup: compile */, nat)
	return a
}

func natFamily(f Family) uint32 {
	if f == IPv6 {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}
