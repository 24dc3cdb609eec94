package inpod

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/ambit-mesh/ambit/api/zds"
	"github.com/ambit-mesh/ambit/linux/netns"
)

// maxPacket is more than any message of the protocol needs (1 KiB).
const maxPacket = 8 << 10

// receive reads one packet: a message, and the namespace in its control message if there is one.
func receive(u *net.UnixConn) (*zds.WorkloadRequest, *netns.Namespace, error) {
	b, oob := make([]byte, maxPacket), make([]byte, unix.CmsgSpace(4*4))
	n, oobn, flags, _, err := u.ReadMsgUnix(b, oob)
	if err != nil {
		return nil, nil, err
	}
	if n == 0 && oobn == 0 {
		return nil, nil, errors.New("the agent closed the connection")
	}
	files, err := filesIn(oob[:oobn])
	if err != nil {
		return nil, nil, err
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 || len(files) > 1 {
		closeAll(files)
		return nil, nil, fmt.Errorf("packet is cut or carries %d descriptors", len(files))
	}
	req := &zds.WorkloadRequest{}
	if err := proto.Unmarshal(b[:n], req); err != nil {
		closeAll(files)
		return nil, nil, fmt.Errorf("packet of the agent: %w", err)
	}
	if len(files) == 0 {
		return req, nil, nil
	}
	ns, err := netns.FromFile(files[0])
	if err != nil {
		closeAll(files)
		return nil, nil, fmt.Errorf("descriptor of the agent: %w", err)
	}
	return req, ns, nil
}

// filesIn takes the descriptors of a control message.
func filesIn(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("control message: %w", err)
	}
	var files []*os.File
	for _, m := range messages {
		fds, err := syscall.ParseUnixRights(&m)
		if err != nil {
			continue // not descriptors
		}
		for _, fd := range fds {
			syscall.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "netns"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
