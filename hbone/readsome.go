package hbone

import (
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"
)

// readable waits until there is something to read, or nothing more will come.
func readable(conn *net.TCPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var rerr syscall.Errno
	err = raw.Read(func(fd uintptr) bool {
		for {
			var b [1]byte
			_, _, rerr = syscall.Syscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b[0])), 1, syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
			if rerr != syscall.EINTR {
				return rerr != syscall.EAGAIN
			}
		}
	})
	if err == nil && rerr != 0 {
		err = &net.OpError{Op: "read", Net: "tcp", Source: conn.LocalAddr(), Addr: conn.RemoteAddr(), Err: os.NewSyscallError("recvfrom", rerr)}
	}
	return err
}

// readSome reads once. From a socket it takes a buffer only when there is something to read. It calls idle before it waits.
func (p *buffers) readSome(conn net.Conn, idle func()) (b *buffer, n int, err error) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		idle()
		b = p.take(single)
		n, err = conn.Read(b.b)
		return b, n, err
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil, 0, err
	}
	var rerr error
	err = raw.Read(func(fd uintptr) bool {
		for {
			b = p.take(single)
			if n, rerr = syscall.Read(int(fd), b.b); rerr == nil {
				return true
			}
			b.release()
			b, n = nil, 0
			if rerr == syscall.EAGAIN {
				idle()
				return false
			}
			if rerr != syscall.EINTR {
				return true
			}
		}
	})
	switch {
	case err != nil:
	case rerr != nil:
		err = &net.OpError{Op: "read", Net: "tcp", Source: tcp.LocalAddr(), Addr: tcp.RemoteAddr(), Err: os.NewSyscallError("read", rerr)}
	case n == 0:
		err = io.EOF
	}
	return b, n, err
}
