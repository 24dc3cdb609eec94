package relay

// messages counts the messages of gRPC in a body: each has a head of five bytes, of which the last four are its length.
type messages struct {
	n    int64
	have int    // bytes of the present head
	size uint32 // as far as the head tells it
	left uint32 // bytes of the present message
}

func (m *messages) see(p []byte) {
	for len(p) > 0 {
		if m.left > 0 {
			k := min(uint64(len(p)), uint64(m.left))
			m.left -= uint32(k)
			p = p[k:]
			continue
		}
		size := m.size
		if m.have > 0 {
			size = size<<8 | uint32(p[0])
		} else {
			size = 0
		}
		m.size = size
		p = p[1:]
		if m.have++; m.have == 5 {
			m.n, m.have, m.left = m.n+1, 0, size
		}
	}
}
