package nlsock

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/linux/netns"
)

// struct inet_diag_req, inet_diag_req_v2 and inet_diag_msg of linux/inet_diag.h.
const (
	InetDiagID  = 48                  // length of what tells sockets apart, of bytes 4 and on of an answer
	InetDiagMsg = 4 + InetDiagID + 20 // length of an answer without attributes; the inode is at its end

	bothFamilies = 18 // TCPDIAG_GETSOCK, whose request knows no family
	byFamily     = 20 // SOCK_DIAG_BY_FAMILY
)

// InetDiagRequest is the question about TCP sockets of a family in some states (1<<state each), or about one.
func InetDiagRequest(family byte, states uint32, id []byte) []byte {
	b := make([]byte, 8+InetDiagID)
	b[0], b[1] = family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(b[4:], states)
	copy(b[8:], id)
	return b
}

// TCP lists the TCP sockets of both families in some states (1<<state each), by whole answers. For each list of others than
// listeners the kernel walks the table of the whole machine, so both families are asked for at once, as only the older of its two
// questions can.
func TCP(ns *netns.Namespace, states uint32) (all [][]byte, err error) {
	err = With(ns, unix.NETLINK_INET_DIAG, func(s *Socket) error {
		old := make([]byte, 4+InetDiagID+8)
		binary.NativeEndian.PutUint32(old[4+InetDiagID:], states)
		if all, err = s.inetDiag(bothFamilies, old, nil); err == nil {
			return nil
		}
		all = nil // a kernel that has forgotten it
		for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
			if all, err = s.inetDiag(byFamily, InetDiagRequest(family, states, nil), all); err != nil {
				return err
			}
		}
		return nil
	})
	return all, err
}

func (s *Socket) inetDiag(kind uint16, question []byte, all [][]byte) ([][]byte, error) {
	var m Messages
	m.Begin(kind, unix.NLM_F_DUMP, question...)
	answers, err := s.Dump(&m)
	for _, a := range answers {
		if len(a.Body) >= InetDiagMsg {
			all = append(all, a.Body)
		}
	}
	return all, err
}
