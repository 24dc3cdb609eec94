package tcp

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/linux/nlsock"
)

// Of linux/netfilter/nfnetlink_conntrack.h.
const (
	getStats      = 5 // IPCTNL_MSG_CT_GET_STATS
	globalEntries = 1 // CTA_STATS_GLOBAL_ENTRIES
)

// Tracked is how many connections the packet filter of a namespace knows. To list even none of them the kernel walks the table of
// the whole machine, which takes milliseconds; the count it has at hand.
func Tracked(ns *netns.Namespace) (int, error) {
	var m nlsock.Messages
	m.Begin(unix.NFNL_SUBSYS_CTNETLINK<<8|getStats, unix.NLM_F_ACK, unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0)
	var answers []nlsock.Answer
	err := nlsock.With(ns, unix.NETLINK_NETFILTER, func(s *nlsock.Socket) (err error) {
		answers, err = s.Dump(&m)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("count tracked connections: %w", err)
	}
	for _, a := range answers {
		if v := nlsock.Attributes(a.Body[min(4, len(a.Body)):])[globalEntries]; len(v) == 4 {
			return int(binary.BigEndian.Uint32(v)), nil
		}
	}
	return 1, nil // it does not say: look
}
