package runtime_test

import (
	"context"
	"net"

	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/local/internal/runtime"
)

func (c *cluster) listen(p *runtime.Pod, addr string) (l net.Listener, err error) {
	err = netns.Do(p.NS(), func() error { l, err = net.Listen("tcp", addr); return err })
	return l, err
}

func (c *cluster) dial(p *runtime.Pod, addr string) (conn net.Conn, err error) {
	err = netns.Do(p.NS(), func() error {
		var d net.Dialer
		conn, err = d.DialContext(context.Background(), "tcp", addr)
		return err
	})
	return conn, err
}
