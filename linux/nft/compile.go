package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// program is a table in the kernel's terms.
type program struct {
	table  *nftables.Table
	sets   []kernelSet
	chains []kernelChain
}

type kernelSet struct {
	set      *nftables.Set
	elements []nftables.SetElement
	live     bool
}

type kernelChain struct {
	chain    *nftables.Chain
	rules    [][]expr.Any
	comments []string
}

func (t Table) kernel() *nftables.Table {
	f := [...]nftables.TableFamily{nftables.TableFamilyINet, nftables.TableFamilyIPv4, nftables.TableFamilyIPv6, nftables.TableFamilyBridge}[t.Family]
	return &nftables.Table{Name: t.Name, Family: f}
}

// compile translates the table; it fails on what the kernel would refuse with less to say.
func (t Table) compile() (*program, error) {
	p := &program{table: t.kernel()}
	for _, s := range t.Sets {
		ks, err := p.addrSet(s)
		if err != nil {
			return nil, fmt.Errorf("table %s: set %s: %w", t.Name, s.Name, err)
		}
		p.add(ks)
	}
	for _, c := range t.Chains {
		kc := kernelChain{chain: c.kernel(p.table)}
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

func (c Chain) kernel(t *nftables.Table) *nftables.Chain {
	k := &nftables.Chain{Name: c.Name, Table: t}
	if c.Hook == None {
		return k
	}
	hook := map[Hook]nftables.ChainHook{
		Prerouting: unix.NF_INET_PRE_ROUTING, Input: unix.NF_INET_LOCAL_IN, Forward: unix.NF_INET_FORWARD,
		Output: unix.NF_INET_LOCAL_OUT, Postrouting: unix.NF_INET_POST_ROUTING,
	}[c.Hook]
	policy := nftables.ChainPolicyAccept
	if c.Drop {
		policy = nftables.ChainPolicyDrop
	}
	k.Type, k.Hooknum, k.Policy = nftables.ChainType(c.Type.String()), &hook, &policy
	k.Priority = new(nftables.ChainPriority(c.Priority))
	return k
}

// add numbers the set: rules of the same transaction refer to it by number.
func (p *program) add(s kernelSet) uint32 {
	s.set.ID = uint32(len(p.sets) + 1)
	p.sets = append(p.sets, s)
	return s.set.ID
}

func (p *program) setID(name string) (uint32, error) {
	for _, s := range p.sets {
		if s.set.Name == name {
			return s.set.ID, nil
		}
	}
	return 0, fmt.Errorf("the table has no set %s", name)
}

func (p *program) addrSet(s Set) (kernelSet, error) {
	ks := kernelSet{live: s.Live, set: &nftables.Set{
		Table: p.table, Name: s.Name, KeyType: nftables.TypeIPAddr, Interval: s.Kind.interval(), KeyByteOrder: binaryutil.BigEndian,
	}}
	if s.Kind.v6() {
		ks.set.KeyType = nftables.TypeIP6Addr
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

func setElements(p netip.Prefix, interval bool) []nftables.SetElement {
	first := p.Masked().Addr()
	e := []nftables.SetElement{{Key: first.AsSlice()}}
	if !interval {
		return e
	}
	last := first.AsSlice()
	for bit := p.Bits(); bit < first.BitLen(); bit++ {
		last[bit/8] |= 1 << (7 - bit%8)
	}
	end, _ := netip.AddrFromSlice(last)
	if next := end.Next(); next.IsValid() {
		e = append(e, nftables.SetElement{Key: next.AsSlice(), IntervalEnd: true})
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
	addrType := nftables.TypeIPAddr
	if a.family == IPv6 {
		addrType = nftables.TypeIP6Addr
	}
	data, err := nftables.ConcatSetType(addrType, nftables.TypeInetService)
	if err != nil {
		t.fail(err)
	}
	ks := kernelSet{set: &nftables.Set{
		Table: p.table, Name: name, IsMap: true, KeyType: nftables.TypeInteger, DataType: data, KeyByteOrder: binaryutil.NativeEndian,
	}}
	for i, to := range a.targets {
		if familyOf(to.Addr()) != a.family {
			t.fail(fmt.Errorf("target %s is of another family than the first", to))
		}
		value := binary.BigEndian.AppendUint16(to.Addr().AsSlice(), to.Port())
		ks.elements = append(ks.elements, nftables.SetElement{Key: host32(uint32(i)), Val: append(value, 0, 0)})
	}
	return &expr.Lookup{SourceRegister: reg, DestRegister: reg, IsDestRegSet: true, SetName: name, SetID: p.add(ks)}
}
