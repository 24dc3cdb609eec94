package nlsock_test

import (
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/testkit/netnstest"
	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/linux/nlsock"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// links lists the interfaces' indexes of a namespace.
func links(t *testing.T, ns *netns.Namespace) (all []int32) {
	t.Helper()
	var m nlsock.Messages
	m.Begin(unix.RTM_GETLINK, unix.NLM_F_DUMP, make([]byte, unix.SizeofIfInfomsg)...)
	must(t, nlsock.With(ns, unix.NETLINK_ROUTE, func(s *nlsock.Socket) error {
		answers, err := s.Dump(&m)
		for _, a := range answers {
			all = append(all, int32(binary.NativeEndian.Uint32(a.Body[4:])))
		}
		return err
	}))
	return all
}

func addPair(m *nlsock.Messages, name string) {
	m.Begin(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK, make([]byte, unix.SizeofIfInfomsg)...)
	m.Text(unix.IFLA_IFNAME, name)
	m.Nest(unix.IFLA_LINKINFO, func() { m.Text(unix.IFLA_INFO_KIND, "veth") })
}

func TestEachMessageHasItsOwnAnswer(t *testing.T) {
	ns := netnstest.New(t)
	var m nlsock.Messages
	addPair(&m, "a")
	addPair(&m, "a")
	addPair(&m, "b")
	must(t, nlsock.With(ns, unix.NETLINK_ROUTE, func(s *nlsock.Socket) error {
		failed, err := s.Do(&m)
		must(t, err)
		if failed[0] != nil || !errors.Is(failed[1], unix.EEXIST) || failed[2] != nil {
			t.Errorf("answers %v, want the second alone to be refused", failed)
		}
		return nil
	}))
	if got := len(links(t, ns)); got != 5 { // lo, and two pairs
		t.Errorf("%d interfaces", got)
	}
}

// What is done between Open and its release is done in the namespace over the same socket, and other namespaces are not affected.
func TestAVisitKeepsItsSockets(t *testing.T) {
	ns, other := netnstest.New(t), netnstest.New(t)
	release, err := nlsock.Open(ns, unix.NETLINK_ROUTE)
	must(t, err)
	var first, second, elsewhere *nlsock.Socket
	keep := func(at **nlsock.Socket) func(*nlsock.Socket) error {
		return func(s *nlsock.Socket) error { *at = s; return nil }
	}
	must(t, nlsock.With(ns, unix.NETLINK_ROUTE, keep(&first)))
	must(t, nlsock.With(ns, unix.NETLINK_ROUTE, keep(&second)))
	must(t, nlsock.With(other, unix.NETLINK_ROUTE, keep(&elsewhere)))
	if first != second || first == elsewhere {
		t.Error("a visit has one socket of a protocol, and only its own namespace")
	}
	var m nlsock.Messages
	addPair(&m, "a")
	failed, err := first.Do(&m)
	must(t, errors.Join(append(failed, err)...))
	if here, there := len(links(t, ns)), len(links(t, other)); here != 3 || there != 1 {
		t.Errorf("%d interfaces in the namespace and %d in another, want 3 and 1", here, there)
	}
	release()
	if _, err := first.Do(&m); err == nil {
		t.Error("a socket works on after the visit")
	}
	if got := len(links(t, ns)); got != 3 {
		t.Errorf("after the visit: %d interfaces, want 3", got)
	}
}

// A kernel's answer is cut as it likes: nothing reads outside of it.
func FuzzAttributes(f *testing.F) {
	f.Add([]byte{8, 0, 1, 0, 1, 2, 3, 4, 5, 0, 2, 0, 9})
	f.Add([]byte{3, 0, 1, 0})
	f.Add([]byte{255, 255, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		total := 0
		for _, v := range nlsock.Attributes(b) {
			total += len(v)
		}
		if total > len(b) {
			t.Errorf("%d bytes of values in %d", total, len(b))
		}
	})
}
