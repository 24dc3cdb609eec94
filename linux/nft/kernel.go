package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/linux/nlsock"
)

// What the kernel answers, parsed.

func with(ns *netns.Namespace, f func(*nlsock.Socket) error) error {
	return nlsock.With(ns, unix.NETLINK_NETFILTER, f)
}

// begin starts a message of the packet filter.
func begin(m *nlsock.Messages, kind, flags uint16, family byte) {
	m.Begin(unix.NFNL_SUBSYS_NFTABLES<<8|kind, flags, family, unix.NFNETLINK_V0, 0, 0)
}

// dumpOf lists the objects of a table, also where the kernel lists those of others: attr is the attribute that names the table.
func dumpOf(s *nlsock.Socket, kind, attr uint16, family byte, table string) ([][]attribute, error) {
	var m nlsock.Messages
	begin(&m, kind, unix.NLM_F_DUMP, family)
	m.Text(attr, table)
	answers, err := s.Dump(&m)
	if err != nil {
		return nil, err
	}
	var all [][]attribute
	for _, a := range answers {
		attrs, err := attributesOf(a)
		if err != nil {
			return nil, err
		}
		if text(attrs, attr) == table {
			all = append(all, attrs)
		}
	}
	return all, nil
}

func attributesOf(a nlsock.Answer) ([]attribute, error) {
	if len(a.Body) < 4 {
		return nil, errors.New("short answer")
	}
	return attributes(a.Body[4:])
}

func value(attrs []attribute, kind uint16) []byte {
	for _, a := range attrs {
		if a.kind == kind {
			return a.value
		}
	}
	return nil
}

func text(attrs []attribute, kind uint16) string {
	v := value(attrs, kind)
	if n := len(v); n > 0 && v[n-1] == 0 {
		v = v[:n-1]
	}
	return string(v)
}

// big32 is 0 where there is none.
func big32(attrs []attribute, kind uint16) uint32 {
	if v := value(attrs, kind); len(v) == 4 {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

func parseChain(attrs []attribute) (kernelChain, error) {
	c := kernelChain{name: text(attrs, unix.NFTA_CHAIN_NAME)}
	hook := value(attrs, unix.NFTA_CHAIN_HOOK)
	if hook == nil {
		return c, nil
	}
	in, err := attributes(hook)
	c.kind, c.policy = text(attrs, unix.NFTA_CHAIN_TYPE), big32(attrs, unix.NFTA_CHAIN_POLICY)
	c.hook, c.priority = big32(in, unix.NFTA_HOOK_HOOKNUM), int32(big32(in, unix.NFTA_HOOK_PRIORITY))
	return c, err
}

// setsOf lists the sets of a table, with the elements of those that are not named in live.
func setsOf(s *nlsock.Socket, family byte, table string, live []string) (l Listing, err error) {
	sets, err := dumpOf(s, unix.NFT_MSG_GETSET, unix.NFTA_SET_TABLE, family, table)
	if err != nil {
		return nil, err
	}
	for _, attrs := range sets {
		flags := big32(attrs, unix.NFTA_SET_FLAGS)
		set := kernelSet{
			name: text(attrs, unix.NFTA_SET_NAME), isMap: flags&unix.NFT_SET_MAP != 0, interval: flags&unix.NFT_SET_INTERVAL != 0,
			key: kernelType{size: big32(attrs, unix.NFTA_SET_KEY_LEN)},
		}
		if !slices.Contains(live, set.name) {
			if set.elements, err = elementsOf(s, family, table, set.name); err != nil {
				return nil, fmt.Errorf("%s: %w", set.name, err)
			}
		}
		l = append(l, setLines(set)...)
	}
	return l, nil
}

func elementsOf(s *nlsock.Socket, family byte, table, set string) ([]element, error) {
	var m nlsock.Messages
	begin(&m, unix.NFT_MSG_GETSETELEM, unix.NLM_F_DUMP, family)
	m.Text(unix.NFTA_SET_ELEM_LIST_TABLE, table)
	m.Text(unix.NFTA_SET_ELEM_LIST_SET, set)
	answers, err := s.Dump(&m)
	if err != nil {
		return nil, err
	}
	var all []element
	for _, a := range answers {
		attrs, err := attributesOf(a)
		if err != nil {
			return nil, err
		}
		list, err := attributes(value(attrs, unix.NFTA_SET_ELEM_LIST_ELEMENTS))
		if err != nil {
			return nil, err
		}
		for _, one := range list {
			e, err := parseElement(one.value)
			if err != nil {
				return nil, err
			}
			all = append(all, e)
		}
	}
	return all, nil
}

func parseElement(b []byte) (element, error) {
	attrs, err := attributes(b)
	if err != nil {
		return element{}, err
	}
	key, err := attributes(value(attrs, unix.NFTA_SET_ELEM_KEY))
	if err != nil {
		return element{}, err
	}
	data, err := attributes(value(attrs, unix.NFTA_SET_ELEM_DATA))
	return element{
		key: value(key, unix.NFTA_DATA_VALUE), value: value(data, unix.NFTA_DATA_VALUE),
		end: big32(attrs, unix.NFTA_SET_ELEM_FLAGS)&unix.NFT_SET_ELEM_INTERVAL_END != 0,
	}, err
}

// rulesOf reads the rules by chain, undecoded: an expression that we do not know must show as a difference.
func rulesOf(s *nlsock.Socket, family byte, table string) (map[string][]string, error) {
	rules, err := dumpOf(s, unix.NFT_MSG_GETRULE, unix.NFTA_RULE_TABLE, family, table)
	if err != nil {
		return nil, err
	}
	lines := map[string][]string{}
	for _, attrs := range rules {
		exprs, err := attributes(value(attrs, unix.NFTA_RULE_EXPRESSIONS))
		if err != nil {
			return nil, err
		}
		var line []string
		for _, e := range exprs {
			text, err := canonical(e.value)
			if err != nil {
				return nil, err
			}
			line = append(line, text)
		}
		chain := text(attrs, unix.NFTA_RULE_CHAIN)
		lines[chain] = append(lines[chain], ruleLine(chain, line))
	}
	return lines, nil
}
