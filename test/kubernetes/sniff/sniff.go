// Package sniff reads what pods of different nodes say to each other in the clear, on the bridge of test/cluster.
package sniff

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/linux/netns"
)

// Segment is a TCP segment with payload.
type Segment struct {
	From, To netip.AddrPort
	Payload  []byte
}

// Parse reads an Ethernet frame that holds TCP over IPv4; false for any other, and for one without payload.
func Parse(frame []byte) (Segment, bool) {
	if len(frame) < 14+20 || binary.BigEndian.Uint16(frame[12:]) != unix.ETH_P_IP {
		return Segment{}, false
	}
	ip := frame[14:]
	head, total := int(ip[0]&15)*4, int(binary.BigEndian.Uint16(ip[2:]))
	if ip[0]>>4 != 4 || head < 20 || ip[9] != unix.IPPROTO_TCP || binary.BigEndian.Uint16(ip[6:])&0x1fff != 0 {
		return Segment{}, false
	}
	if total == 0 || total > len(ip) { // offloaded: longer than the field can say
		total = len(ip)
	}
	if total < head+20 {
		return Segment{}, false
	}
	tcp := ip[head:total]
	data := int(tcp[12]>>4) * 4
	if data < 20 || data >= len(tcp) {
		return Segment{}, false
	}
	address := func(b []byte, port []byte) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b)), binary.BigEndian.Uint16(port))
	}
	return Segment{address(ip[12:16], tcp[0:]), address(ip[16:20], tcp[2:]), tcp[data:]}, true
}

// Watch keeps the segments that hold a mark, until Stop.
type Watch struct {
	fd       int
	stopping atomic.Bool
	done     chan struct{}
	report   Report // read once done is closed
}

// Report is what was on the wire.
type Report struct {
	// Seen are all segments with payload, Lost the packets that the kernel had no room for: no proof holds with any.
	Seen, Lost int
	// Found are the first hundred segments that held the mark.
	Found []Segment
}

// Stop ends the watch once all that came before it is read.
func (w *Watch) Stop() (Report, error) {
	w.stopping.Store(true)
	<-w.done
	stats, err := unix.GetsockoptTpacketStats(w.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err == nil {
		w.report.Lost = int(stats.Drops)
	}
	return w.report, errors.Join(err, unix.Close(w.fd))
}

// Start watches the bridge of the cluster with this state directory for payloads that hold mark.
func Start(state string, mark []byte) (*Watch, error) {
	b, err := os.ReadFile(filepath.Join(state, "control-plane", "pid"))
	if err != nil {
		return nil, fmt.Errorf("find the cluster's bridge: %w", err)
	}
	pid, err := strconv.Atoi(strings.Fields(string(b) + " -")[0])
	if err != nil {
		return nil, fmt.Errorf("find the cluster's bridge: %w", err)
	}
	fd, err := socketIn("/proc/" + strconv.Itoa(pid) + "/ns/net")
	if err != nil {
		return nil, fmt.Errorf("listen on the cluster's bridge: %w", err)
	}
	w := &Watch{fd: fd, done: make(chan struct{})}
	go w.read(mark)
	return w, nil
}

// socketIn opens a packet socket in a network namespace. A socket stays in the one it was made in.
func socketIn(path string) (fd int, err error) {
	ns, err := netns.Open(path)
	if err != nil {
		return 0, err
	}
	defer ns.Close()
	err = netns.Do(ns, func() (err error) {
		const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // in network order
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all); err != nil {
			return err
		}
		return errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1), // what the bridge passes on has come in before
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 256<<20),
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}))
	})
	return fd, err
}

func (w *Watch) read(mark []byte) {
	defer close(w.done)
	buf := make([]byte, 256<<10)
	for {
		flags := 0
		if w.stopping.Load() {
			flags = unix.MSG_DONTWAIT // what is there already, however much more comes
		}
		n, _, err := unix.Recvfrom(w.fd, buf, flags)
		switch {
		case errors.Is(err, unix.EAGAIN) && flags != 0:
			return
		case err != nil:
			continue // EINTR, EAGAIN, and interfaces that go
		}
		if s, ok := Parse(buf[:n]); ok && !s.From.Addr().IsLoopback() { // what a node says to itself is not on the network
			w.report.Seen++
			if bytes.Contains(s.Payload, mark) && len(w.report.Found) < 100 {
				s.Payload = bytes.Clone(s.Payload)
				w.report.Found = append(w.report.Found, s)
			}
		}
	}
}
