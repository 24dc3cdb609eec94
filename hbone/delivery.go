package hbone

import (
	"net"
	"os"
	"syscall"
	"unsafe"
)

// delivery writes pieces to a socket as far as it takes them at once.
type delivery struct {
	iov   []syscall.Iovec
	once  func(uintptr) bool // write, bound once
	wrote int
	err   syscall.Errno
}

// maxPieces is how many pieces the kernel takes at once.
const maxPieces = 1024

// send says how many bytes the socket took.
func (d *delivery) send(to *net.TCPConn, raw syscall.RawConn, pieces [][]byte) (int, error) {
	if d.once == nil {
		d.once = d.write
	}
	d.wrote, d.err = 0, 0
	for _, p := range pieces[:min(len(pieces), maxPieces)] {
		v := syscall.Iovec{Base: &p[0]}
		v.SetLen(len(p))
		d.iov = append(d.iov, v)
	}
	err := raw.Write(d.once)
	clear(d.iov)
	d.iov = d.iov[:0]
	if err == nil && d.err != 0 {
		err = &net.OpError{Op: "write", Net: "tcp", Source: to.LocalAddr(), Addr: to.RemoteAddr(), Err: os.NewSyscallError("writev", d.err)}
	}
	return d.wrote, err
}

// write writes once. It never asks to be called again.
func (d *delivery) write(fd uintptr) bool {
	for {
		n, _, err := syscall.Syscall(syscall.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&d.iov[0])), uintptr(len(d.iov)))
		switch err {
		case syscall.EINTR:
			continue
		case 0:
			d.wrote = int(n)
		case syscall.EAGAIN:
		default:
			d.err = err
		}
		return true
	}
}
