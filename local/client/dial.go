package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"time"
)

// Stream is a connection into a pod. Each of its directions ends by itself.
type Stream interface {
	net.Conn
	CloseWrite() error
}

// stream reads first what came with the answer.
type stream struct {
	*net.UnixConn
	early *bufio.Reader
}

func (s stream) Read(b []byte) (int, error) { return s.early.Read(b) }

// DialPod connects to a port of a pod's loopback.
func (c *Client) DialPod(ctx context.Context, namespace, pod string, port int) (Stream, error) {
	d, err := (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(c.dir, APISocket))
	if err != nil {
		return nil, c.away(err)
	}
	conn := d.(*net.UnixConn)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	path := fmt.Sprintf("/ambit/v1/dial/%s/%s/%d", url.PathEscape(namespace), url.PathEscape(pod), port)
	req, err := http.NewRequest(http.MethodPost, "http://cluster"+path, nil)
	if err == nil {
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "tcp")
		err = req.Write(conn)
	}
	in := bufio.NewReader(conn)
	var resp *http.Response
	if err == nil {
		resp, err = http.ReadResponse(in, req)
	}
	if err == nil && resp.StatusCode != http.StatusSwitchingProtocols {
		err = refusal(resp)
		resp.Body.Close()
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("port %d of pod %s: %w", port, pod, err)
	}
	return stream{conn, in}, nil
}

// Runs tells whether the cluster takes connections of this user.
func (c *Client) Runs() bool {
	conn, err := net.DialTimeout("unix", filepath.Join(c.dir, APISocket), time.Second)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// away says why the cluster cannot be reached, and what to do.
func (c *Client) away(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("the local cluster in %s is another user's: use it as that user, or start one of your own with: ambit local up", c.dir)
	}
	return fmt.Errorf("no local cluster is running (%s); start one with: ambit local up", c.dir)
}
