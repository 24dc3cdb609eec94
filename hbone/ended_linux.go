package hbone

import (
	"encoding/binary"
	"syscall"
)

// tcpClose is the state of a socket whose connection is over in both directions (include/net/tcp_states.h).
const tcpClose = 7

// over reports whether the connection of a socket is over in both directions. One whose peer has ended its own is not,
// as long as we have not ended ours: if it is over nevertheless, the peer has reset it.
//
// This has to be asked because the kernel tells of a reset once. If the goroutine that writes to the socket hears of it,
// the one that reads sees what looks like a proper end.
func over(raw syscall.RawConn) bool {
	state := byte(0)
	err := raw.Control(func(fd uintptr) {
		info, err := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_INFO) // its first byte is the state
		var b [4]byte
		if binary.NativeEndian.PutUint32(b[:], uint32(info)); err == nil {
			state = b[0]
		}
	})
	return err != nil || state == tcpClose
}
