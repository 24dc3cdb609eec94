package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// program is a table in the kernel's terms.
type program struct {
	family byte
	name   string
	sets   []kernelSet
	chains []kernelChain
}

type kernelSet struct {
	name            string
	id              uint32
	interval, isMap bool
	key, value      kernelType
	elements        []element
	live            bool
}

// kernelType is a number by which nft(8) knows the type, and its length.
type kernelType struct{ number, size uint32 }

func integer() kernelType { return kernelType{4, 4} }
func addrV4() kernelType  { return kernelType{7, 4} }
func addrV6() kernelType  { return kernelType{8, 16} }

// andPort is an address followed by a port, which fills a register of its own.
func (t kernelType) andPort() kernelType { return kernelType{t.number<<6 | 13, t.size + 4} }

type element struct {
	key, value []byte
	end        bool // of an interval
}

type kernelChain struct {
	name     string
	kind     string // "" for one that only jumps reach
	hook     uint32
	priority int32
	policy   uint32
	rules    [][]expr.Any
	comments []string
}

// accepts is the kernel's number of the policy; 0 drops.
const accepts = 1

func (f Family) kernel() byte {
	return [...]byte{unix.NFPROTO_INET, unix.NFPROTO_IPV4, unix.NFPROTO_IPV6, unix.NFPROTO_BRIDGE}[f]
}

// compile translates the table; it fails on what the kernel would refuse with less to say.
func (t Table) compile() (*program, error) {
	p := &program{family: t.Family.kernel(), name: t.Name}
	for _, s := range t.Sets {
		ks, err := addrSet(s)
		if err != nil {
			return nil, fmt.Errorf("table %s: set %s: %w", t.Name, s.Name, err)
		}
		p.add(ks)
	}
	for _, c := range t.Chains {
		kc := c.kernel()
		for i, r := range c.Rules {
			exprs, err := p.rule(t.Family, r, fmt.Sprintf("targets-%s-%d", c.Name, i))
			if err != nil {
				return nil, fmt.Errorf("table %s: chain %s: rule %q: %w", t.Name, c.Name, r, err)
			}
			kc.rules = append(kc.rules, exprs)
			kc.comments = append(kc.comments, r.comment)
		}
		p.chains = append(p.chains, kc)
	}
	return p, nil
}

func (c Chain) kernel() kernelChain {
	k := kernelChain{name: c.Name}
	if c.Hook == None {
		return k
	}
	k.hook = map[Hook]uint32{
		Prerouting: unix.NF_INET_PRE_ROUTING, Input: unix.NF_INET_LOCAL_IN, Forward: unix.NF_INET_FORWARD,
		Output: unix.NF_INET_LOCAL_OUT, Postrouting: unix.NF_INET_POST_ROUTING,
	}[c.Hook]
	k.kind, k.priority = c.Type.String(), int32(c.Priority)
	if !c.Drop {
		k.policy = accepts
	}
	return k
}

// add numbers the set: rules of the same transaction refer to it by number.
func (p *program) add(s kernelSet) uint32 {
	s.id = uint32(len(p.sets) + 1)
	p.sets = append(p.sets, s)
	return s.id
}

func (p *program) setID(name string) (uint32, error) {
	for _, s := range p.sets {
		if s.name == name {
			return s.id, nil
		}
	}
	return 0, fmt.Errorf("the table has no set %s", name)
}

func addrSet(s Set) (kernelSet, error) {
	ks := kernelSet{name: s.Name, live: s.Live, interval: s.Kind.interval(), key: addrV4()}
	if s.Kind.v6() {
		ks.key = addrV6()
	}
	for _, e := range s.Elements {
		if e.Addr().Is6() != s.Kind.v6() {
			return ks, fmt.Errorf("element %s is of the other family", e)
		}
		if !e.IsSingleIP() && !s.Kind.interval() {
			return ks, fmt.Errorf("element %s is not one address", e)
		}
		ks.elements = append(ks.elements, setElements(e, s.Kind.interval())...)
	}
	return ks, nil
}

func setElements(p netip.Prefix, interval bool) []element {
	first := p.Masked().Addr()
	e := []element{{key: first.AsSlice()}}
	if !interval {
		return e
	}
	last := first.AsSlice()
	for bit := p.Bits(); bit < first.BitLen(); bit++ {
		last[bit/8] |= 1 << (7 - bit%8)
	}
	end, _ := netip.AddrFromSlice(last)
	if next := end.Next(); next.IsValid() {
		e = append(e, element{key: next.AsSlice(), end: true})
	} // else the interval reaches the end of the address space and needs no end
	return e
}

// rule gives the expressions of r; the map of a random DNAT, if it has one, becomes a set of that name.
func (p *program) rule(f Family, r Rule, mapName string) (exprs []expr.Any, err error) {
	t := compiled{setID: p.setID, fail: func(e error) { err = errors.Join(err, e) }}
	family := INet
	want := func(one Family) {
		if one != INet && family != INet && one != family || one != INet && f != INet && f != Bridge && one != f {
			t.fail(errors.New("IPv4 and IPv6 in one rule"))
		}
		if one != INet {
			family = one
		}
	}
	var body []expr.Any
	for _, m := range r.matches {
		want(m.family)
		body = append(body, m.build(t)...)
	}
	for _, a := range r.actions {
		want(a.family)
		for _, e := range a.build(t) {
			if e == nil {
				e = p.targets(a, mapName, t)
			}
			body = append(body, e)
		}
	}
	if family != INet && f == Bridge {
		ethertype := map[Family]uint16{IPv4: unix.ETH_P_IP, IPv6: unix.ETH_P_IPV6}[family]
		exprs = compare(&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: reg}, false, binary.BigEndian.AppendUint16(nil, ethertype))(t)
	}
	if family != INet && f == INet {
		exprs = compare(&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg}, false, []byte{byte(natFamily(family))})(t)
	}
	return append(exprs, body...), err
}

// targets makes the map from a random number to an address and port, and the lookup in it.
func (p *program) targets(a Action, name string, t compiled) expr.Any {
	target := addrV4().andPort()
	if a.family == IPv6 {
		target = addrV6().andPort()
	}
	ks := kernelSet{name: name, isMap: true, key: integer(), value: target}
	for i, to := range a.targets {
		if familyOf(to.Addr()) != a.family {
			t.fail(fmt.Errorf("target %s is of another family than the first", to))
		}
		value := binary.BigEndian.AppendUint16(to.Addr().AsSlice(), to.Port())
		ks.elements = append(ks.elements, element{key: host32(uint32(i)), value: append(value, 0, 0)})
	}
	return &expr.Lookup{SourceRegister: reg, DestRegister: reg, IsDestRegSet: true, SetName: name, SetID: p.add(ks)}
}
