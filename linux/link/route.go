package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/linux/netns"
)

// Route says where packets to a prefix go.
type Route struct {
	To    netip.Prefix // 0.0.0.0/0 or ::/0 for the default
	Via   netip.Addr   // next hop; the zero Addr: on the link itself
	Link  string       // "" only with Via
	From  netip.Addr   // preferred source; the zero Addr: the kernel's choice
	Table int          // 0: main
	Local bool         // deliver here, whoever the address belongs to
}

func (r Route) String() string {
	s := r.To.String()
	if r.Local {
		s = "local " + s
	}
	if r.Via.IsValid() {
		s += " via " + r.Via.String()
	}
	if r.Link != "" {
		s += " dev " + r.Link
	}
	if r.Table != 0 {
		s += fmt.Sprintf(" table %d", r.Table)
	}
	return s
}

// AddRoute adds or replaces a route.
func AddRoute(ns *netns.Namespace, r Route) error {
	err := in(ns, func(h *netlink.Handle) error {
		nr, err := r.kernel(h)
		if err != nil {
			return err
		}
		return h.RouteReplace(nr)
	})
	if err != nil {
		return fmt.Errorf("add route %s: %w", r, err)
	}
	return nil
}

// DeleteRoute removes a route.
func DeleteRoute(ns *netns.Namespace, r Route) error {
	err := in(ns, func(h *netlink.Handle) error {
		nr, err := r.kernel(h)
		if err != nil {
			return err
		}
		return h.RouteDel(nr)
	})
	if err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.ENOENT) && !missing(err) {
		return fmt.Errorf("delete route %s: %w", r, err)
	}
	return nil
}

// HasRoute reports whether the route is there.
func HasRoute(ns *netns.Namespace, r Route) (bool, error) {
	found := false
	err := in(ns, func(h *netlink.Handle) error {
		want, err := r.kernel(h)
		if err != nil {
			return err
		}
		filter := &netlink.Route{Table: want.Table}
		if filter.Table == 0 {
			filter.Table = unix.RT_TABLE_MAIN
		}
		all, err := h.RouteListFiltered(family(r.To.Addr()), filter, netlink.RT_FILTER_TABLE)
		if err != nil {
			return err
		}
		for _, have := range all {
			if have.Dst != nil && have.Dst.String() == want.Dst.String() && have.Gw.Equal(want.Gw) &&
				(want.LinkIndex == 0 || have.LinkIndex == want.LinkIndex) && (!r.Local || have.Type == unix.RTN_LOCAL) {
				found = true
			}
		}
		return nil
	})
	if err != nil && !missing(err) {
		return false, fmt.Errorf("find route %s: %w", r, err)
	}
	return found, nil
}

// Routes lists what is routed to whole prefixes by a table, of one family.
func Routes(ns *netns.Namespace, table int, v6 bool) ([]Route, error) {
	var all []Route
	err := in(ns, func(h *netlink.Handle) error {
		list, err := h.RouteListFiltered(Rule{V6: v6}.family(), &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return err
		}
		names, err := linkNames(h)
		if err != nil {
			return err
		}
		for _, k := range list {
			if k.Dst == nil {
				continue
			}
			if a, ok := netip.AddrFromSlice(k.Dst.IP); ok {
				ones, _ := k.Dst.Mask.Size()
				r := Route{To: netip.PrefixFrom(a.Unmap(), ones), Link: names[k.LinkIndex], Table: table, Local: k.Type == unix.RTN_LOCAL}
				if via, ok := netip.AddrFromSlice(k.Gw); ok {
					r.Via = via.Unmap()
				}
				all = append(all, r)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list routes of table %d: %w", table, err)
	}
	return all, nil
}

func (r Route) kernel(h *netlink.Handle) (*netlink.Route, error) {
	nr := &netlink.Route{Dst: ipNet(r.To), Table: r.Table, Family: family(r.To.Addr())}
	if r.Via.IsValid() {
		nr.Gw = net.IP(r.Via.AsSlice())
	} else {
		nr.Scope = netlink.SCOPE_LINK
	}
	if r.From.IsValid() {
		nr.Src = net.IP(r.From.AsSlice())
	}
	if r.Local {
		nr.Type, nr.Scope = unix.RTN_LOCAL, netlink.SCOPE_HOST
	}
	if r.Link != "" {
		l, err := h.LinkByName(r.Link)
		if err != nil {
			return nil, err
		}
		nr.LinkIndex = l.Attrs().Index
	}
	return nr, nil
}

func family(a netip.Addr) int {
	if a.Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}
