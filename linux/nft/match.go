package nft

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Match is a condition on a packet.
type Match struct {
	text   string
	family Family // IPv4 or IPv6 if only packets of that family can match, else INet
	build  func(t compiled) []expr.Any
}

// compiled is what a rule needs to know of its table.
type compiled struct {
	setID func(name string) (uint32, error)
	fail  func(error)
}

const reg = unix.NFT_REG_1

func operator(not bool) (expr.CmpOp, string) {
	if not {
		return expr.CmpOpNeq, "!= "
	}
	return expr.CmpOpEq, ""
}

func compare(load expr.Any, not bool, value []byte) func(compiled) []expr.Any {
	op, _ := operator(not)
	return func(compiled) []expr.Any {
		return []expr.Any{load, &expr.Cmp{Op: op, Register: reg, Data: value}}
	}
}

func masked(load expr.Any, not bool, value, mask []byte) func(compiled) []expr.Any {
	op, _ := operator(not)
	return func(compiled) []expr.Any {
		return []expr.Any{
			load,
			&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: uint32(len(mask)), Mask: mask, Xor: make([]byte, len(mask))},
			&expr.Cmp{Op: op, Register: reg, Data: value},
		}
	}
}

func host32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// TCP matches TCP segments.
func TCP() Match { return proto("tcp", unix.IPPROTO_TCP) }

// SYN matches the first segment of a TCP connection; after TCP.
func SYN() Match {
	const offset, fin, syn, rst, ack = 13, 1, 2, 4, 16
	return Match{text: "tcp flags & (fin | syn | rst | ack) == syn", build: masked(
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 1}, false, []byte{syn}, []byte{fin | syn | rst | ack})}
}

// UDP matches UDP datagrams.
func UDP() Match { return proto("udp", unix.IPPROTO_UDP) }

func proto(name string, number byte) Match {
	return Match{text: "meta l4proto " + name, build: compare(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg}, false, []byte{number})}
}

// V4 matches IPv4 packets.
func V4() Match { return Match{text: "meta nfproto ipv4", family: IPv4, build: nothing} }

// V6 matches IPv6 packets.
func V6() Match { return Match{text: "meta nfproto ipv6", family: IPv6, build: nothing} }

// nothing is for matches that their family says completely.
func nothing(compiled) []expr.Any { return nil }

// Saddr matches packets from the prefix.
func Saddr(p netip.Prefix) Match { return addr("saddr", p, false) }

// NotSaddr matches packets of the prefix's family that are not from it.
func NotSaddr(p netip.Prefix) Match { return addr("saddr", p, true) }

// Daddr matches packets to the prefix.
func Daddr(p netip.Prefix) Match { return addr("daddr", p, false) }

// NotDaddr matches packets of the prefix's family that are not to it.
func NotDaddr(p netip.Prefix) Match { return addr("daddr", p, true) }

func addr(field string, p netip.Prefix, not bool) Match {
	_, neq := operator(not)
	m := Match{text: fmt.Sprintf("%s %s %s%s", familyOf(p.Addr()), field, neq, prefixText(p)), family: familyOf(p.Addr())}
	load, value := loadAddr(field, m.family), p.Masked().Addr().AsSlice()
	switch {
	case p.IsSingleIP():
		m.build = compare(load, not, value)
	default:
		m.build = masked(load, not, value, net.CIDRMask(p.Bits(), p.Addr().BitLen()))
	}
	return m
}

// SaddrIn matches packets from an address in a named set of the table.
func SaddrIn(s Set) Match { return addrIn("saddr", s, false) }

// DaddrIn matches packets to an address in a named set of the table.
func DaddrIn(s Set) Match { return addrIn("daddr", s, false) }

// NotSaddrIn matches packets of the set's family from an address that is not in it.
func NotSaddrIn(s Set) Match { return addrIn("saddr", s, true) }

// NotDaddrIn matches packets of the set's family to an address that is not in it.
func NotDaddrIn(s Set) Match { return addrIn("daddr", s, true) }

func addrIn(field string, s Set, not bool) Match {
	_, neq := operator(not)
	family := IPv4
	if s.Kind.v6() {
		family = IPv6
	}
	return Match{
		text: fmt.Sprintf("%s %s %s@%s", family, field, neq, s.Name), family: family,
		build: func(t compiled) []expr.Any {
			id, err := t.setID(s.Name)
			if err != nil {
				t.fail(err)
			}
			return []expr.Any{loadAddr(field, family), &expr.Lookup{SourceRegister: reg, SetName: s.Name, SetID: id, Invert: not}}
		},
	}
}

func familyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

func loadAddr(field string, f Family) expr.Any {
	p := &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4}
	if f == IPv6 {
		p.Offset, p.Len = 8, 16
	}
	if field == "daddr" {
		p.Offset += p.Len
	}
	return p
}

// Sport matches the source port. The rule also needs TCP or UDP.
func Sport(p uint16) Match { return port("sport", p, false) }

// Sports matches source ports from first to last. The rule also needs TCP or UDP.
func Sports(first, last uint16) Match {
	return Match{text: fmt.Sprintf("th sport %d-%d", first, last), build: fixed(
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2},
		&expr.Cmp{Op: expr.CmpOpGte, Register: reg, Data: binary.BigEndian.AppendUint16(nil, first)},
		&expr.Cmp{Op: expr.CmpOpLte, Register: reg, Data: binary.BigEndian.AppendUint16(nil, last)})}
}

// Dport matches the destination port. The rule also needs TCP or UDP.
func Dport(p uint16) Match { return port("dport", p, false) }

// NotDport matches other destination ports. The rule also needs TCP or UDP.
func NotDport(p uint16) Match { return port("dport", p, true) }

func port(field string, p uint16, not bool) Match {
	_, neq := operator(not)
	load := &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2}
	if field == "dport" {
		load.Offset = 2
	}
	return Match{text: fmt.Sprintf("th %s %s%d", field, neq, p), build: compare(load, not, binary.BigEndian.AppendUint16(nil, p))}
}

// InIface matches packets that came in by the interface.
func InIface(name string) Match { return iface("iifname", expr.MetaKeyIIFNAME, name, false) }

// NotInIface matches packets that came in by another interface.
func NotInIface(name string) Match { return iface("iifname", expr.MetaKeyIIFNAME, name, true) }

// OutIface matches packets that leave by the interface.
func OutIface(name string) Match { return iface("oifname", expr.MetaKeyOIFNAME, name, false) }

// NotOutIface matches packets that leave by another interface.
func NotOutIface(name string) Match { return iface("oifname", expr.MetaKeyOIFNAME, name, true) }

func iface(field string, key expr.MetaKey, name string, not bool) Match {
	_, neq := operator(not)
	value := make([]byte, unix.IFNAMSIZ)
	copy(value, name)
	return Match{text: fmt.Sprintf("%s %s%q", field, neq, name), build: compare(&expr.Meta{Key: key, Register: reg}, not, value)}
}

// Mark matches packets whose mark is value in the bits of mask.
func Mark(value, mask uint32) Match { return mark("meta mark", metaMark(), value, mask, false) }

// NotMark matches packets whose mark is not value in the bits of mask.
func NotMark(value, mask uint32) Match { return mark("meta mark", metaMark(), value, mask, true) }

// CTMark matches packets of connections whose mark is value in the bits of mask.
func CTMark(value, mask uint32) Match { return mark("ct mark", ctMark(), value, mask, false) }

// NotCTMark matches packets of connections whose mark is not value in the bits of mask.
func NotCTMark(value, mask uint32) Match { return mark("ct mark", ctMark(), value, mask, true) }

func metaMark() expr.Any { return &expr.Meta{Key: expr.MetaKeyMARK, Register: reg} }
func ctMark() expr.Any   { return &expr.Ct{Key: expr.CtKeyMARK, Register: reg} }

func mark(what string, load expr.Any, value, mask uint32, not bool) Match {
	op := "=="
	if not {
		op = "!="
	}
	return Match{text: fmt.Sprintf("%s & %#x %s %#x", what, mask, op, value), build: masked(load, not, host32(value), host32(mask))}
}

// DaddrLocal matches packets to an address of this namespace.
func DaddrLocal() Match {
	return Match{text: "fib daddr type local", build: compare(
		&expr.Fib{Register: reg, ResultADDRTYPE: true, FlagDADDR: true}, false, host32(unix.RTN_LOCAL))}
}

// SocketUser matches packets that a socket of this namespace sends, made by a process of a user.
func SocketUser(uid uint32) Match {
	return Match{text: fmt.Sprintf("meta skuid %d", uid), build: compare(&expr.Meta{Key: expr.MetaKeySKUID, Register: reg}, false, host32(uid))}
}

// SocketOwned matches packets that a socket of this namespace sends: not forwarded ones.
func SocketOwned() Match {
	// Loading the owner of a packet without a socket ends the rule; no user has this number (it is "none").
	return Match{text: "meta skuid != 4294967295", build: compare(&expr.Meta{Key: expr.MetaKeySKUID, Register: reg}, true, host32(0xffffffff))}
}

// State is a set of connection states.
type State uint32

// The states of connections; | joins them.
const (
	StateInvalid     State = 1
	StateEstablished State = 2
	StateRelated     State = 4
	StateNew         State = 8
	StateUntracked   State = 64
)

// CTState matches packets of connections in one of the states.
func CTState(s State) Match {
	return Match{text: fmt.Sprintf("ct state & %#x != 0", uint32(s)), build: masked(
		&expr.Ct{Key: expr.CtKeySTATE, Register: reg}, true, host32(0), host32(uint32(s)))}
}
