package nft

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/linux/netns"
)

// The kernel queues one answer for each message of a transaction before we read the first.
const socketBuffer = 4 << 20

// The length of a netlink attribute has 16 bits, and what is longer is cut without an error: a list of elements,
// 64 bytes each at most, goes in parts.
const elementsPerMessage = 512

// with runs f with a connection to the packet filter of the namespace.
func with(ns *netns.Namespace, f func(c *nftables.Conn) error) error {
	var c *nftables.Conn
	err := netns.Do(ns, func() (err error) {
		c, err = nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(s *netlink.Conn) error {
			return errors.Join(s.SetReadBuffer(socketBuffer), s.SetWriteBuffer(socketBuffer))
		}))
		return err
	})
	if err != nil {
		return fmt.Errorf("open packet filter: %w", err)
	}
	return errors.Join(f(c), c.CloseLasting())
}

// Apply puts the tables into the kernel in one transaction. Each replaces the table of its name, with all that was in it;
// on error nothing has changed. Root may apply tables of any size; where the process is not root outside its user namespace,
// the kernel's net.core.wmem_max bounds all tables together: its usual 208 KiB hold some 400 balanced Services.
func Apply(ns *netns.Namespace, tables ...Table) error {
	var programs []*program
	for _, t := range tables {
		p, err := t.compile()
		if err != nil {
			return err
		}
		programs = append(programs, p)
	}
	err := with(ns, func(c *nftables.Conn) error {
		for _, p := range programs {
			if err := p.queue(c); err != nil {
				return err
			}
		}
		return c.Flush()
	})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOBUFS):
		// There were more answers than room for them, which says nothing of the transaction: look.
		return inPlace(ns, err, tables)
	case errors.Is(err, unix.EMSGSIZE):
		err = fmt.Errorf("more than net.core.wmem_max allows an ordinary user at once: %w", err)
	}
	return fmt.Errorf("apply packet filter tables: %w", err)
}

// inPlace gives nil if the kernel has exactly the tables, else the error that made us doubt it.
func inPlace(ns *netns.Namespace, doubt error, tables []Table) error {
	for _, t := range tables {
		d, err := Compare(ns, t)
		if err != nil {
			return fmt.Errorf("apply packet filter tables: %w", errors.Join(doubt, err))
		}
		if len(d) > 0 {
			return fmt.Errorf("apply packet filter table %s: %w", t.Name, doubt)
		}
	}
	return nil
}

func (p *program) queue(c *nftables.Conn) error {
	c.AddTable(p.table) // so that the deletion cannot fail
	c.DelTable(p.table)
	c.AddTable(p.table)
	for _, s := range p.sets {
		if err := c.AddSet(s.set, nil); err != nil {
			return fmt.Errorf("set %s: %w", s.set.Name, err)
		}
		for part := range slices.Chunk(s.elements, elementsPerMessage) {
			if err := c.SetAddElements(s.set, part); err != nil {
				return fmt.Errorf("set %s: %w", s.set.Name, err)
			}
		}
	}
	for _, kc := range p.chains {
		c.AddChain(kc.chain)
	}
	for _, kc := range p.chains {
		for i, exprs := range kc.rules {
			r := &nftables.Rule{Table: p.table, Chain: kc.chain, Exprs: exprs}
			if text := kc.comments[i]; text != "" {
				r.UserData = userdata.AppendString(nil, userdata.TypeComment, text)
			}
			c.AddRule(r)
		}
	}
	return nil
}

// Delete removes tables by family and name. One that is not there is no error.
func Delete(ns *netns.Namespace, tables ...Table) error {
	err := with(ns, func(c *nftables.Conn) error {
		for _, t := range tables {
			c.AddTable(t.kernel())
			c.DelTable(t.kernel())
		}
		return c.Flush()
	})
	if err != nil {
		return fmt.Errorf("delete packet filter tables: %w", err)
	}
	return nil
}

// Names lists the tables of the namespace, such as "inet demo".
func Names(ns *netns.Namespace) ([]string, error) {
	var names []string
	err := with(ns, func(c *nftables.Conn) error {
		all, err := c.ListTables()
		for _, t := range all {
			names = append(names, fmt.Sprintf("%s %s", familyName(t.Family), t.Name))
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list packet filter tables: %w", err)
	}
	return names, nil
}

func familyName(f nftables.TableFamily) string {
	switch f {
	case nftables.TableFamilyINet:
		return "inet"
	case nftables.TableFamilyIPv4:
		return "ip"
	case nftables.TableFamilyBridge:
		return Bridge.String()
	case nftables.TableFamilyIPv6:
		return "ip6"
	}
	return fmt.Sprintf("family-%d", f)
}

// AddAddrs adds addresses to a set of a table in the kernel. One that is there already is no error.
func AddAddrs(ns *netns.Namespace, t Table, set string, addrs ...netip.Addr) error {
	return changeAddrs(ns, t, set, addrs, "add to", (*nftables.Conn).SetAddElements)
}

// DeleteAddrs removes addresses from a set of a table in the kernel. One that is not there is no error.
func DeleteAddrs(ns *netns.Namespace, t Table, set string, addrs ...netip.Addr) error {
	for _, a := range addrs { // one transaction each: an absent one fails all of its transaction
		err := changeAddrs(ns, t, set, []netip.Addr{a}, "delete from", (*nftables.Conn).SetDeleteElements)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}

func changeAddrs(ns *netns.Namespace, t Table, set string, addrs []netip.Addr, what string,
	change func(*nftables.Conn, *nftables.Set, []nftables.SetElement) error,
) error {
	var elements []nftables.SetElement
	for _, a := range addrs {
		elements = append(elements, nftables.SetElement{Key: a.AsSlice()})
	}
	if len(elements) == 0 {
		return nil
	}
	err := with(ns, func(c *nftables.Conn) error {
		for part := range slices.Chunk(elements, elementsPerMessage) {
			if err := change(c, &nftables.Set{Table: t.kernel(), Name: set}, part); err != nil {
				return err
			}
		}
		return c.Flush()
	})
	if err != nil {
		return fmt.Errorf("%s set %s of table %s: %w", what, set, t.Name, err)
	}
	return nil
}

// Addrs lists the addresses in a set of a table in the kernel.
func Addrs(ns *netns.Namespace, t Table, set string) ([]netip.Addr, error) {
	var all []netip.Addr
	err := with(ns, func(c *nftables.Conn) error {
		elements, err := c.GetSetElements(&nftables.Set{Table: t.kernel(), Name: set})
		for _, e := range elements {
			if a, ok := netip.AddrFromSlice(e.Key); ok {
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
