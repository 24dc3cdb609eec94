// Package nlsock asks the kernel over netlink, through sockets in network namespaces.
//
// Each call opens a socket, which means to enter the namespace, unless Open holds one there: what is done at one visit is done
// over one socket.
package nlsock

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/linux/netns"
)

// buffer is how much the kernel may answer at once; it makes its answers as long as they have room.
const buffer = 32 << 10

// Socket speaks one netlink protocol in one namespace.
type Socket struct {
	mu  *sync.Mutex // guards below: one question at a time, also to the others that are held with it
	fd  int         // -1 once it is closed
	seq uint32
	buf []byte
}

// dial opens a socket where the thread is.
func dial(protocol int, mu *sync.Mutex, buf []byte) (*Socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	// Acknowledgements need not repeat what they acknowledge. Answers come while the question is asked; the limit is for a
	// kernel that does not know the question's protocol and would be waited for.
	err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 30}))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("set up netlink socket: %w", err), unix.Close(fd))
	}
	return &Socket{mu: mu, fd: fd, buf: buf}, nil
}

// Close closes the socket.
func (s *Socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	fd := s.fd
	if s.fd = -1; fd < 0 {
		return nil
	}
	return unix.Close(fd)
}

// Open enters the namespace once and holds a socket of each protocol there until release. nil, the process's own namespace,
// holds none.
func Open(ns *netns.Namespace, protocols ...int) (release func(), err error) {
	if ns == nil {
		return func() {}, nil
	}
	all, mu, buf := map[int]io.Closer{}, new(sync.Mutex), make([]byte, buffer)
	err = netns.Do(ns, func() error {
		for _, p := range protocols {
			s, err := dial(p, mu, buf)
			if err != nil {
				return err
			}
			all[p] = s
		}
		return nil
	})
	if err != nil {
		for _, s := range all {
			s.Close()
		}
		return nil, err
	}
	return ns.Hold(all), nil
}

// With runs f with a socket of a protocol in the namespace.
func With(ns *netns.Namespace, protocol int, f func(*Socket) error) error {
	if ns != nil {
		if s, ok := ns.Held(protocol).(*Socket); ok {
			return f(s)
		}
	}
	var s *Socket
	err := netns.Do(ns, func() (err error) {
		s, err = dial(protocol, new(sync.Mutex), make([]byte, buffer))
		return err
	})
	if err != nil {
		return err
	}
	return errors.Join(f(s), s.Close())
}

// Answer is one message of the kernel.
type Answer struct {
	Kind uint16
	Body []byte // fixed part and attributes
}

// ErrChanging means that what was listed changed meanwhile, again and again.
var ErrChanging = errors.New("what the kernel lists changes faster than it can be listed")

// Dump asks a question that is answered with a list, or with one answer and an acknowledgement.
func (s *Socket) Dump(m *Messages) ([]Answer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range 10 {
		all, whole, err := s.dumpLocked(m)
		if err != nil || whole {
			return all, err
		}
	}
	return nil, ErrChanging
}

func (s *Socket) dumpLocked(m *Messages) (all []Answer, whole bool, err error) {
	if err := s.sendLocked(m); err != nil {
		return nil, false, err
	}
	whole = true
	for done := false; !done; {
		err := s.receiveLocked(0, func(h header, body []byte) error {
			if h.seq != s.seq {
				return nil // of an earlier question that was given up
			}
			if h.flags&unix.NLM_F_DUMP_INTR != 0 {
				whole = false
			}
			switch h.kind {
			case unix.NLMSG_DONE, unix.NLMSG_ERROR:
				done = true
				return errno(body)
			}
			all = append(all, Answer{h.kind, append([]byte(nil), body...)})
			return nil
		})
		if err != nil {
			return nil, false, err
		}
	}
	return all, whole, nil
}

// Do sends messages that are acknowledged each, and gives the first error of each: nil entries where there is none.
func (s *Socket) Do(m *Messages) ([]error, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.sendLocked(m); err != nil {
		return nil, err
	}
	first, failed := s.seq+1-uint32(m.count), make([]error, m.count)
	for left := m.count; left > 0; {
		err := s.receiveLocked(0, func(h header, body []byte) error {
			if i := h.seq - first; h.kind == unix.NLMSG_ERROR && i < uint32(m.count) {
				failed[i] = errno(body)
				left--
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return failed, nil
}

// Transact sends messages that take effect together or not at all: nil means that they did. Only the last is acknowledged, and
// each that fails: unlike as many acknowledgements as messages these have room.
func (s *Socket) Transact(m *Messages) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := m.Len(); n > 64<<10 { // what every socket takes
		for _, option := range []int{unix.SO_SNDBUF, unix.SO_SNDBUFFORCE} { // the second is for root; the kernel says whether it is enough
			_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, option, n+64<<10)
		}
	}
	if err := s.sendLocked(m); err != nil {
		return err
	}
	first, acknowledged := s.seq+1-uint32(m.count), false
	var failed []error
	for {
		err := s.receiveLocked(unix.MSG_DONTWAIT, func(h header, body []byte) error {
			if i := h.seq - first; h.kind == unix.NLMSG_ERROR && i < uint32(m.count) {
				failed = append(failed, errno(body))
				acknowledged = true
			}
			return nil
		})
		if errors.Is(err, unix.EAGAIN) {
			break // the kernel has said all before it returned from the sending
		}
		if err != nil {
			return errors.Join(append(failed, err)...)
		}
	}
	if !acknowledged {
		return errors.New("the kernel does not say what became of it")
	}
	return errors.Join(failed...)
}

func (s *Socket) sendLocked(m *Messages) error {
	if s.fd < 0 {
		return errors.New("netlink socket is closed")
	}
	m.number(s.seq + 1)
	s.seq += uint32(m.count)
	for {
		err := unix.Sendto(s.fd, m.b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

type header struct {
	kind, flags uint16
	seq         uint32
}

// receiveLocked shows f every message of one packet; the bodies are good only as long as f runs.
func (s *Socket) receiveLocked(flags int, f func(header, []byte) error) error {
	n, from, err := unix.Recvfrom(s.fd, s.buf, flags|unix.MSG_TRUNC)
	for errors.Is(err, unix.EINTR) {
		n, from, err = unix.Recvfrom(s.fd, s.buf, flags|unix.MSG_TRUNC)
	}
	if err != nil {
		return err
	}
	if n > len(s.buf) {
		return fmt.Errorf("the kernel answers with %d bytes at once, there is room for %d", n, len(s.buf))
	}
	if a, ok := from.(*unix.SockaddrNetlink); !ok || a.Pid != 0 {
		return nil // another process's words
	}
	for b := s.buf[:n]; len(b) >= unix.SizeofNlMsghdr; {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.SizeofNlMsghdr || size > len(b) {
			return errors.New("netlink message of impossible length")
		}
		h := header{binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint16(b[6:]), binary.NativeEndian.Uint32(b[8:])}
		if err := f(h, b[unix.SizeofNlMsghdr:size]); err != nil {
			return err
		}
		b = b[min((size+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1), len(b)):]
	}
	return nil
}

// errno is the error that begins an acknowledgement or ends a list.
func errno(body []byte) error {
	if len(body) < 4 {
		return nil // the end of a list may say nothing
	}
	if code := int32(binary.NativeEndian.Uint32(body)); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}
