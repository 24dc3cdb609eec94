package nlsock

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Messages are one or more netlink messages, written one after the other. The zero value is none.
type Messages struct {
	b     []byte
	start int  // of the last message
	open  bool // it may be added to
	count int
}

// Begin starts a message; fixed is what stands before its attributes.
func (m *Messages) Begin(kind, flags uint16, fixed ...byte) {
	m.End()
	m.start, m.open = len(m.b), true
	m.count++
	m.b = append(m.b, make([]byte, unix.SizeofNlMsghdr)...)
	binary.NativeEndian.PutUint16(m.b[m.start+4:], kind)
	binary.NativeEndian.PutUint16(m.b[m.start+6:], flags|unix.NLM_F_REQUEST)
	m.b = append(m.b, fixed...)
	m.pad()
}

// Attr adds an attribute.
func (m *Messages) Attr(kind uint16, value ...byte) {
	m.b = binary.NativeEndian.AppendUint16(m.b, uint16(unix.SizeofNlAttr+len(value)))
	m.b = binary.NativeEndian.AppendUint16(m.b, kind)
	m.b = append(m.b, value...)
	m.pad()
}

// Text adds an attribute that ends with a zero.
func (m *Messages) Text(kind uint16, value string) { m.Attr(kind, append([]byte(value), 0)...) }

// Uint32 adds an attribute in the byte order of the machine, as most of the kernel wants it.
func (m *Messages) Uint32(kind uint16, value uint32) {
	m.Attr(kind, binary.NativeEndian.AppendUint32(nil, value)...)
}

// Big32 adds an attribute in the byte order of the network, as the packet filter wants it.
func (m *Messages) Big32(kind uint16, value uint32) {
	m.Attr(kind, binary.BigEndian.AppendUint32(nil, value)...)
}

// Nest adds an attribute that holds what f adds.
func (m *Messages) Nest(kind uint16, f func()) {
	at := len(m.b)
	m.Attr(kind | unix.NLA_F_NESTED)
	f()
	binary.NativeEndian.PutUint16(m.b[at:], uint16(len(m.b)-at))
}

// Acknowledge asks for an acknowledgement of the last message.
func (m *Messages) Acknowledge() {
	flags := m.b[m.start+6:]
	binary.NativeEndian.PutUint16(flags, binary.NativeEndian.Uint16(flags)|unix.NLM_F_ACK)
}

// Append adds the messages of another, which has ended.
func (m *Messages) Append(o *Messages) {
	m.End()
	m.start = len(m.b) + o.start
	m.count += o.count
	m.b = append(m.b, o.b...)
}

// Len is how many bytes there are.
func (m *Messages) Len() int { return len(m.b) }

func (m *Messages) pad() {
	for len(m.b)%unix.NLMSG_ALIGNTO != 0 {
		m.b = append(m.b, 0)
	}
}

// End ends the last message.
func (m *Messages) End() {
	if m.open {
		binary.NativeEndian.PutUint32(m.b[m.start:], uint32(len(m.b)-m.start))
		m.open = false
	}
}

// number gives each message its number, from first on.
func (m *Messages) number(first uint32) {
	m.End()
	for at := 0; at < len(m.b); at += int(binary.NativeEndian.Uint32(m.b[at:])) {
		binary.NativeEndian.PutUint32(m.b[at+8:], first)
		first++
	}
}

// Attributes splits a run of attributes by kind; of several of a kind the last counts. What is no attribute ends the run.
func Attributes(b []byte) map[uint16][]byte {
	all := map[uint16][]byte{}
	for len(b) >= unix.SizeofNlAttr {
		n, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
		if n < unix.SizeofNlAttr || n > len(b) {
			break
		}
		all[kind&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER)] = b[unix.SizeofNlAttr:n]
		b = b[min((n+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1), len(b)):]
	}
	return all
}
