package nft

import (
	"fmt"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/linux/nlsock"
)

// The length of a netlink attribute has 16 bits, and what is longer is cut without an error: a list of elements,
// 64 bytes each at most, goes in parts.
const elementsPerMessage = 512

// write adds the messages that make the table.
func (p *program) write(m *nlsock.Messages) error {
	t := table{p.family, p.name}
	t.message(m, unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE)
	for _, s := range p.sets {
		p.writeSet(m, s)
		writeElements(m, unix.NFT_MSG_NEWSETELEM, t, s)
	}
	for _, c := range p.chains {
		p.writeChain(m, c)
	}
	for _, c := range p.chains {
		for i, exprs := range c.rules {
			if err := p.writeRule(m, c.name, exprs, c.comments[i]); err != nil {
				return fmt.Errorf("chain %s: rule %d: %w", c.name, i, err)
			}
		}
	}
	m.End()
	return nil
}

func (p *program) writeSet(m *nlsock.Messages, s kernelSet) {
	begin(m, unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, p.family)
	m.Text(unix.NFTA_SET_TABLE, p.name)
	m.Text(unix.NFTA_SET_NAME, s.name)
	flags, order := uint32(0), uint32(2) // of the keys, for nft(8): 1 is the machine's, 2 the network's
	if s.interval {
		flags |= unix.NFT_SET_INTERVAL
	}
	if s.isMap {
		flags |= unix.NFT_SET_MAP
		order = 1
	}
	m.Big32(unix.NFTA_SET_FLAGS, flags)
	m.Big32(unix.NFTA_SET_KEY_TYPE, s.key.number)
	m.Big32(unix.NFTA_SET_KEY_LEN, s.key.size)
	m.Big32(unix.NFTA_SET_ID, s.id)
	if s.isMap {
		m.Big32(unix.NFTA_SET_DATA_TYPE, s.value.number)
		m.Big32(unix.NFTA_SET_DATA_LEN, s.value.size)
	}
	m.Attr(unix.NFTA_SET_USERDATA, append([]byte{0, 4}, host32(order)...)...)
}

func writeElements(m *nlsock.Messages, kind uint16, t table, s kernelSet) {
	for part := range slices.Chunk(s.elements, elementsPerMessage) {
		begin(m, kind, unix.NLM_F_CREATE, t.family)
		m.Text(unix.NFTA_SET_ELEM_LIST_TABLE, t.name)
		m.Text(unix.NFTA_SET_ELEM_LIST_SET, s.name)
		m.Big32(unix.NFTA_SET_ELEM_LIST_SET_ID, s.id)
		m.Nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func() {
			for i, e := range part {
				m.Nest(uint16(i+1), func() {
					if e.end {
						m.Big32(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
					}
					m.Nest(unix.NFTA_SET_ELEM_KEY, func() { m.Attr(unix.NFTA_DATA_VALUE, e.key...) })
					if len(e.value) > 0 {
						m.Nest(unix.NFTA_SET_ELEM_DATA, func() { m.Attr(unix.NFTA_DATA_VALUE, e.value...) })
					}
				})
			}
		})
	}
}

func (p *program) writeChain(m *nlsock.Messages, c kernelChain) {
	begin(m, unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, p.family)
	m.Text(unix.NFTA_CHAIN_TABLE, p.name)
	m.Text(unix.NFTA_CHAIN_NAME, c.name)
	if c.kind == "" {
		return
	}
	m.Nest(unix.NFTA_CHAIN_HOOK, func() {
		m.Big32(unix.NFTA_HOOK_HOOKNUM, c.hook)
		m.Big32(unix.NFTA_HOOK_PRIORITY, uint32(c.priority))
	})
	m.Big32(unix.NFTA_CHAIN_POLICY, c.policy)
	m.Text(unix.NFTA_CHAIN_TYPE, c.kind)
}

func (p *program) writeRule(m *nlsock.Messages, chain string, exprs []expr.Any, comment string) (err error) {
	begin(m, unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, p.family)
	m.Text(unix.NFTA_RULE_TABLE, p.name)
	m.Text(unix.NFTA_RULE_CHAIN, chain)
	m.Nest(unix.NFTA_RULE_EXPRESSIONS, func() {
		for _, e := range exprs {
			b, e := expr.Marshal(p.family, e)
			if e != nil && err == nil {
				err = e
			}
			m.Attr(unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, b...)
		}
	})
	if comment != "" { // as nft(8) shows it
		m.Attr(unix.NFTA_RULE_USERDATA, append(append([]byte{0, byte(len(comment) + 1)}, comment...), 0)...)
	}
	return err
}
