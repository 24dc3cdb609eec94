// Package fakeztunnel speaks a node proxy's end of the hand-over protocol by hand.
package fakeztunnel

import (
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/ambit-mesh/ambit/api/zds"
	"github.com/ambit-mesh/ambit/linux/netns"
)

// Ztunnel is one connection to a node agent.
type Ztunnel struct {
	Conn  *net.UnixConn
	Heard chan string   // what it was told, in words: see Expect
	Ended chan struct{} // closed with the connection
}

// Answer gives the error of the ack to what was told, "" for none; ok is false for no answer at all.
type Answer func(told string) (why string, ok bool)

// Yes agrees to everything.
func Yes(string) (string, bool) { return "", true }

// Connect makes a connection, once the socket is there, and says hello.
func Connect(t testing.TB, socket string, reply Answer) *Ztunnel {
	t.Helper()
	return ConnectFrom(t, nil, socket, reply)
}

// ConnectFrom makes a connection out of a network namespace.
func ConnectFrom(t testing.TB, ns *netns.Namespace, socket string, reply Answer) *Ztunnel {
	t.Helper()
	var c *net.UnixConn
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		err := netns.Do(ns, func() (err error) {
			c, err = net.DialUnix("unixpacket", nil, &net.UnixAddr{Net: "unixpacket", Name: socket})
			return err
		})
		if err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	z := &Ztunnel{Conn: c, Heard: make(chan string, 10_000), Ended: make(chan struct{})}
	z.Send(t, &zds.ZdsHello{Version: zds.Version_V1})
	go z.run(reply)
	t.Cleanup(z.Close)
	return z
}

// Close ends the connection.
func (z *Ztunnel) Close() {
	z.Conn.Close()
	<-z.Ended
}

// Add puts the request to take a pod in words.
func Add(uid, namespace, name, account string, netns uint64) string {
	return fmt.Sprintf("add %s %s/%s %s %d", uid, namespace, name, account, netns)
}

// Send sends any message.
func (z *Ztunnel) Send(t testing.TB, m proto.Message) {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	_, err = z.Conn.Write(b)
	if err != nil {
		t.Fatal(err)
	}
}

func (z *Ztunnel) run(reply Answer) {
	defer close(z.Ended)
	b, oob := make([]byte, 1025), make([]byte, 256)
	for {
		n, o, _, _, err := z.Conn.ReadMsgUnix(b, oob)
		if err != nil || n == 0 {
			return
		}
		told := tell(b[:n], oob[:o])
		z.Heard <- told
		if why, ok := reply(told); ok {
			ack, err := proto.Marshal(&zds.WorkloadResponse{Payload: &zds.WorkloadResponse_Ack{Ack: &zds.Ack{Error: why}}})
			if err != nil {
				return
			}
			if _, err := z.Conn.Write(ack); err != nil {
				return
			}
		}
	}
}

// tell puts a request in words: "add uid ns/name sa <inode>", "del uid", "snapshot".
func tell(b, oob []byte) string {
	var r zds.WorkloadRequest
	if err := proto.Unmarshal(b, &r); err != nil || len(b) > 1024 {
		return fmt.Sprintf("garbage of %d bytes: %v", len(b), err)
	}
	var inode uint64
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(messages) > 1 {
		return "bad control messages"
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil || len(fds) != 1 {
			return "bad rights"
		}
		var st unix.Stat_t
		if err := errors.Join(unix.Fstat(fds[0], &st), unix.Close(fds[0])); err != nil {
			return err.Error()
		}
		inode = st.Ino
	}
	switch p := r.GetPayload().(type) {
	case *zds.WorkloadRequest_Add:
		i := p.Add.GetWorkloadInfo()
		return Add(p.Add.GetUid(), i.GetNamespace(), i.GetName(), i.GetServiceAccount(), inode)
	case *zds.WorkloadRequest_Del:
		return "del " + p.Del.GetUid()
	case *zds.WorkloadRequest_Keep:
		return "keep " + p.Keep.GetUid()
	case *zds.WorkloadRequest_SnapshotSent:
		return "snapshot"
	}
	return "unknown"
}

// Expect waits for what must be told next: "add uid ns/name account netns", "del uid" or "snapshot".
func (z *Ztunnel) Expect(t testing.TB, want ...string) {
	t.Helper()
	for _, w := range want {
		select {
		case got := <-z.Heard:
			if got != w {
				t.Fatalf("proxy was told %q, want %q", got, w)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("proxy was not told %q", w)
		}
	}
}

// Quiet fails the test if more was told than was expected.
func (z *Ztunnel) Quiet(t testing.TB) {
	t.Helper()
	select {
	case got := <-z.Heard:
		t.Fatalf("proxy was told %q, want nothing", got)
	default:
	}
}
