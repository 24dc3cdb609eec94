package nft

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/linux/nlsock"
)

// Program is tables translated for the kernel, to be put into many namespaces. It never changes.
type Program struct {
	tables []compiledTable
}

type compiledTable struct {
	table
	make nlsock.Messages
	want Listing
	live []string // sets whose elements do not count
}

// table names one.
type table struct {
	family byte
	name   string
}

func (t table) message(m *nlsock.Messages, kind, flags uint16) {
	begin(m, kind, flags, t.family)
	m.Text(unix.NFTA_TABLE_NAME, t.name)
}

// Compile translates tables.
func Compile(tables ...Table) (*Program, error) {
	all := &Program{}
	for _, t := range tables {
		p, err := t.compile()
		if err != nil {
			return nil, err
		}
		c := compiledTable{table: table{p.family, p.name}}
		if err := p.write(&c.make); err != nil {
			return nil, fmt.Errorf("table %s: %w", t.Name, err)
		}
		if c.want, err = p.listing(); err != nil {
			return nil, fmt.Errorf("table %s: %w", t.Name, err)
		}
		for _, s := range t.Sets {
			if s.Live {
				c.live = append(c.live, s.Name)
			}
		}
		all.tables = append(all.tables, c)
	}
	return all, nil
}

// Apply puts tables into the kernel in one transaction. Each replaces the table of its name, with all that was in it;
// on error nothing has changed. Root may apply tables of any size; where the process is not root outside its user namespace,
// the kernel's net.core.wmem_max bounds all tables together: its usual 208 KiB hold some 400 balanced Services.
func Apply(ns *netns.Namespace, tables ...Table) error {
	p, err := Compile(tables...)
	if err != nil {
		return err
	}
	_, err = p.Apply(ns)
	return err
}

// Apply puts the tables into the kernel as the function does. It gives the generation that is in force then, if nobody else has
// changed anything meanwhile.
func (p *Program) Apply(ns *netns.Namespace) (g Generation, err error) {
	err = with(ns, func(s *nlsock.Socket) (err error) {
		g, err = p.apply(s)
		return err
	})
	switch {
	case err == nil:
		return g, nil
	case errors.Is(err, unix.ENOBUFS):
		// There were more answers than room for them, which says nothing of the transaction: look.
		if d, e := p.Differences(ns); e != nil || len(d) > 0 {
			return 0, fmt.Errorf("apply packet filter tables: %w", errors.Join(err, e))
		}
		return 0, nil
	case errors.Is(err, unix.EMSGSIZE):
		err = fmt.Errorf("more than net.core.wmem_max allows an ordinary user at once: %w", err)
	}
	return 0, fmt.Errorf("apply packet filter tables: %w", err)
}

// apply deletes only tables that are there: after a deletion whoever closes a socket waits until no processor looks at what was
// deleted, which takes longer than all else. What is there cannot change unnoticed: the transaction is only for its generation.
func (p *Program) apply(s *nlsock.Socket) (Generation, error) {
	for range 5 {
		g, err := generation(s)
		if err != nil {
			return 0, err
		}
		there, err := tablesOf(s)
		if err != nil {
			return 0, err
		}
		var m nlsock.Messages
		transaction(&m, g)
		for i := range p.tables {
			t := &p.tables[i]
			if slices.Contains(there, t.table) {
				t.message(&m, unix.NFT_MSG_DELTABLE, 0)
			}
			m.Append(&t.make)
		}
		if err := commit(s, &m); !errors.Is(err, unix.ERESTART) {
			return g.next(), err
		}
	}
	var m nlsock.Messages // others are busy here: as it comes
	transaction(&m, 0)
	for i := range p.tables {
		t := &p.tables[i]
		t.message(&m, unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE) // so that the deletion cannot fail
		t.message(&m, unix.NFT_MSG_DELTABLE, 0)
		m.Append(&t.make)
	}
	return 0, commit(s, &m)
}

// transaction begins one that fails with ERESTART if the generation is not in force any more; 0 is any.
func transaction(m *nlsock.Messages, g Generation) {
	const batchGenID = 1 // NFNL_BATCH_GENID of linux/netfilter/nfnetlink.h
	m.Begin(unix.NFNL_MSG_BATCH_BEGIN, 0, unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES)
	if g != 0 {
		m.Big32(batchGenID, uint32(g))
	}
}

// commit ends a transaction.
func commit(s *nlsock.Socket, m *nlsock.Messages) error {
	m.Acknowledge() // its last
	m.Begin(unix.NFNL_MSG_BATCH_END, 0, unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES)
	return s.Transact(m)
}

// Differences says how the kernel's tables differ, one line for each difference; nil if they do not.
func (p *Program) Differences(ns *netns.Namespace) ([]string, error) {
	var d []string
	err := with(ns, func(s *nlsock.Socket) error {
		for i := range p.tables {
			t := &p.tables[i]
			have, err := list(s, t.family, t.name, t.live)
			if err != nil {
				return err
			}
			for _, line := range difference(t.want, have) {
				if len(p.tables) > 1 {
					line = t.name + ": " + line
				}
				d = append(d, line)
			}
		}
		return nil
	})
	return d, err
}

// There reports whether any of the tables is in the kernel, whatever is in it.
func (p *Program) There(ns *netns.Namespace) (there bool, err error) {
	err = with(ns, func(s *nlsock.Socket) error {
		have, err := tablesOf(s)
		there = slices.ContainsFunc(p.tables, func(t compiledTable) bool { return slices.Contains(have, t.table) })
		return err
	})
	if err != nil {
		return false, fmt.Errorf("list packet filter tables: %w", err)
	}
	return there, nil
}

// Delete removes tables by family and name. One that is not there is no error.
func Delete(ns *netns.Namespace, tables ...Table) error {
	err := with(ns, func(s *nlsock.Socket) error {
		there, err := tablesOf(s)
		if err != nil {
			return err
		}
		var m nlsock.Messages
		transaction(&m, 0)
		empty := m.Len()
		for _, t := range tables {
			if k := (table{t.Family.kernel(), t.Name}); slices.Contains(there, k) {
				k.message(&m, unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE) // it may go meanwhile
				k.message(&m, unix.NFT_MSG_DELTABLE, 0)
			}
		}
		if m.Len() == empty {
			return nil
		}
		return commit(s, &m)
	})
	if err != nil {
		return fmt.Errorf("delete packet filter tables: %w", err)
	}
	return nil
}

// Names lists the tables of the namespace, such as "inet demo".
func Names(ns *netns.Namespace) ([]string, error) {
	var names []string
	err := with(ns, func(s *nlsock.Socket) error {
		all, err := tablesOf(s)
		for _, t := range all {
			names = append(names, fmt.Sprintf("%s %s", familyName(t.family), t.name))
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list packet filter tables: %w", err)
	}
	return names, nil
}

func tablesOf(s *nlsock.Socket) ([]table, error) {
	var m nlsock.Messages
	begin(&m, unix.NFT_MSG_GETTABLE, unix.NLM_F_DUMP, unix.NFPROTO_UNSPEC)
	answers, err := s.Dump(&m)
	if err != nil {
		return nil, err
	}
	all := make([]table, 0, len(answers))
	for _, a := range answers {
		attrs, err := attributesOf(a)
		if err != nil {
			return nil, err
		}
		all = append(all, table{a.Body[0], text(attrs, unix.NFTA_TABLE_NAME)})
	}
	return all, nil
}

func familyName(f byte) string {
	for _, known := range []Family{INet, IPv4, IPv6, Bridge} {
		if known.kernel() == f {
			return known.String()
		}
	}
	return fmt.Sprintf("family-%d", f)
}

// AddAddrs adds addresses to a set of a table in the kernel. One that is there already is no error.
func AddAddrs(ns *netns.Namespace, t Table, set string, addrs ...netip.Addr) error {
	return changeAddrs(ns, t, set, addrs, "add to", unix.NFT_MSG_NEWSETELEM)
}

// DeleteAddrs removes addresses from a set of a table in the kernel. One that is not there is no error.
func DeleteAddrs(ns *netns.Namespace, t Table, set string, addrs ...netip.Addr) error {
	for _, a := range addrs { // one transaction each: an absent one fails all of its transaction
		err := changeAddrs(ns, t, set, []netip.Addr{a}, "delete from", unix.NFT_MSG_DELSETELEM)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}

func changeAddrs(ns *netns.Namespace, t Table, set string, addrs []netip.Addr, what string, kind uint16) error {
	if len(addrs) == 0 {
		return nil
	}
	var elements []element
	for _, a := range addrs {
		elements = append(elements, element{key: a.AsSlice()})
	}
	var m nlsock.Messages
	transaction(&m, 0)
	writeElements(&m, kind, table{t.Family.kernel(), t.Name}, kernelSet{name: set, elements: elements})
	if err := with(ns, func(s *nlsock.Socket) error { return commit(s, &m) }); err != nil {
		return fmt.Errorf("%s set %s of table %s: %w", what, set, t.Name, err)
	}
	return nil
}

// Addrs lists the addresses in a set of a table in the kernel.
func Addrs(ns *netns.Namespace, t Table, set string) ([]netip.Addr, error) {
	var all []netip.Addr
	err := with(ns, func(s *nlsock.Socket) error {
		elements, err := elementsOf(s, t.Family.kernel(), t.Name, set)
		for _, e := range elements {
			if a, ok := netip.AddrFromSlice(e.key); ok {
				all = append(all, a)
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list set %s of table %s: %w", set, t.Name, err)
	}
	return all, nil
}
