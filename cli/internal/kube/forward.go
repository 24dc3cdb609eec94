package kube

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/httpstream"
	httpspdy "k8s.io/apimachinery/pkg/util/httpstream/spdy"
	names "k8s.io/apimachinery/pkg/util/portforward"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/transport/websocket"
	streaming "k8s.io/streaming/pkg/httpstream"

	"github.com/ambit-mesh/ambit/local/client"
)

const (
	// maxAnswer bounds what is read of one answer of a pod.
	maxAnswer = 256 << 20
	// answerTime bounds an answer as a whole, once it has begun.
	answerTime = 2 * time.Minute
)

// Pod makes a request to a port of a pod's loopback, as port-forward does. Within is until when its answer must begin.
func (c *Client) Pod(ctx context.Context, method, namespace, pod string, port int, path string) ([]byte, error) {
	late := fmt.Errorf("no answer within %v", c.Within)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	patience := time.AfterFunc(c.Within, func() { cancel(late) })
	defer patience.Stop()
	s, err := c.dialPod(ctx, namespace, pod, port)
	if err != nil {
		return nil, c.forwardError(ctx, pod, port, err)
	}
	defer s.Close()
	begun := func() { patience.Reset(answerTime) }
	b, code, err := ask(ctx, begun, s, method, port, path)
	if err != nil {
		if why := s.said(ctx); why != nil {
			err = why
		}
		return nil, c.forwardError(ctx, pod, port, err)
	}
	if code >= http.StatusMultipleChoices {
		return nil, &client.StatusError{Code: code, Message: cmp.Or(strings.TrimSpace(string(b)), http.StatusText(code))}
	}
	return b, nil
}

// ask makes one request over a connection; begun is called when the answer begins.
func ask(ctx context.Context, begun func(), conn net.Conn, method string, port int, path string) ([]byte, int, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+net.JoinHostPort("localhost", strconv.Itoa(port))+path, nil)
	if err != nil {
		return nil, 0, err
	}
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) { return lent{conn}, nil }}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	begun()
	var b bytes.Buffer
	if n, err := io.Copy(&b, io.LimitReader(resp.Body, maxAnswer+1)); err != nil || n > maxAnswer {
		return nil, 0, cmp.Or(err, fmt.Errorf("more than %d MiB", maxAnswer>>20))
	}
	return b.Bytes(), resp.StatusCode, nil
}

// lent is a connection that is not its user's to close: what the pod's node has to say of it may come after its end.
type lent struct{ net.Conn }

func (lent) Close() error { return nil }

// DialPod connects to a port of a pod's loopback.
func (c *Client) DialPod(ctx context.Context, namespace, pod string, port int) (client.Stream, error) {
	f, err := c.dialPod(ctx, namespace, pod, port)
	if err != nil {
		return nil, c.forwardError(ctx, pod, port, err)
	}
	return f, nil
}

func (c *Client) dialPod(ctx context.Context, namespace, pod string, port int) (*forward, error) {
	conn, err := c.connect(ctx, c.base.JoinPath("api/v1/namespaces", namespace, "pods", pod, "portforward"))
	if err != nil {
		return nil, err
	}
	f := &forward{tunnel: conn, failed: make(chan error, 1)}
	h := http.Header{}
	h.Set(corev1.PortHeader, strconv.Itoa(port))
	h.Set(corev1.PortForwardRequestIDHeader, "0")
	h.Set(corev1.StreamType, corev1.StreamTypeError)
	errs, err := conn.CreateStream(h)
	if err == nil {
		h.Set(corev1.StreamType, corev1.StreamTypeData)
		f.Stream, err = conn.CreateStream(h)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	f.reading.Go(func() { f.listen(errs, port) })
	return f, nil
}

// connect opens the tunnel of a port-forward. The libraries that do heed no ctx once the server is reached: then the attempt
// is left to itself, and what comes of it too late is closed.
func (c *Client) connect(ctx context.Context, to *url.URL) (httpstream.Connection, error) {
	type result struct {
		conn httpstream.Connection
		err  error
	}
	done := make(chan result)
	go func() {
		conn, err := c.upgrade(ctx, to)
		select {
		case done <- result{conn, err}:
		case <-ctx.Done():
			if err == nil {
				conn.Close()
			}
		}
	}()
	select {
	case r := <-done:
		return r.conn, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// upgrade makes a tunnel of a request: over a WebSocket, or, where a server or a proxy before it is too old for that, in the
// way of old.
func (c *Client) upgrade(ctx context.Context, to *url.URL) (httpstream.Connection, error) {
	tr, holder, err := websocket.RoundTripperFor(c.rest)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, to.String(), nil)
	if err != nil {
		return nil, err
	}
	ws, err := websocket.Negotiate(tr, holder, req, names.WebsocketsSPDYTunnelingPrefix+names.PortForwardV1Name)
	if err == nil {
		return httpspdy.NewClientConnection(portforward.NewTunnelingConnection("client", ws))
	}
	var failed *streaming.UpgradeFailureError
	switch {
	case errors.As(err, &failed) && refusal(failed.Cause):
		return nil, failed.Cause
	case failed == nil && !streaming.IsHTTPSProxyError(err):
		return nil, err
	}
	old, upgrader, err := spdy.RoundTripperFor(c.rest)
	if err != nil {
		return nil, err
	}
	if req, err = http.NewRequestWithContext(ctx, http.MethodPost, to.String(), nil); err != nil {
		return nil, err
	}
	conn, _, err := spdy.Negotiate(upgrader, &http.Client{Transport: old}, req, names.PortForwardV1Name)
	return conn, err
}

// refusal tells whether a server that was understood said no: another way to ask gets the same answer.
func refusal(err error) bool {
	var s *apierrors.StatusError
	return errors.As(err, &s) && (s.ErrStatus.Code == http.StatusForbidden || s.ErrStatus.Code == http.StatusUnauthorized || s.ErrStatus.Code == http.StatusNotFound)
}

// forwardError words why a port of a pod cannot be reached.
func (c *Client) forwardError(ctx context.Context, pod string, port int, err error) error {
	var s *apierrors.StatusError
	if errors.As(err, &s) {
		return fmt.Errorf("port %d of pod %s: %w", port, pod, c.refused(&client.StatusError{Code: int(s.ErrStatus.Code), Reason: s.ErrStatus.Reason, Message: s.ErrStatus.Message}))
	}
	if ctx.Err() != nil {
		err = cmp.Or(context.Cause(ctx), err)
	}
	return fmt.Errorf("port %d of pod %s: %w", port, pod, err)
}

// forward is a connection into a pod. It is alone in its tunnel, and takes that with it.
type forward struct {
	httpstream.Stream
	tunnel  httpstream.Connection
	failed  chan error // what the pod's node had to say, if anything; closed when it has said it
	reading sync.WaitGroup
}

// listen waits for what the pod's node says of the port, which is nothing if all is well.
func (f *forward) listen(errs httpstream.Stream, port int) {
	defer close(f.failed)
	text, err := io.ReadAll(io.LimitReader(errs, 64<<10))
	if err == nil && len(text) > 0 {
		f.failed <- nodeError(string(text), port)
		_ = f.Stream.Reset() // the connection is over; its own error is the reset
	}
}

// nodeError is what a node said of a port that it could not reach, the long way round left out.
func nodeError(text string, port int) error {
	if strings.Contains(text, "connection refused") {
		return fmt.Errorf("nothing listens there: %w", errRefused)
	}
	_, after, ok := strings.Cut(text, fmt.Sprintf("error forwarding port %d to pod ", port))
	if ok {
		text = after
	}
	return errors.New(strings.TrimSpace(text))
}

var errRefused = errors.New("connection refused")

// said is what the pod's node said, if it says something soon.
func (f *forward) said(ctx context.Context) error {
	select {
	case err := <-f.failed:
		return err
	case <-ctx.Done():
		return nil
	case <-time.After(2 * time.Second):
		return nil
	}
}

func (f *forward) Close() error {
	err := f.tunnel.Close()
	f.reading.Wait()
	return err
}

// CloseWrite ends the direction towards the pod.
func (f *forward) CloseWrite() error { return f.Stream.Close() }

func (f *forward) LocalAddr() net.Addr              { return addr("here") }
func (f *forward) RemoteAddr() net.Addr             { return addr("pod") }
func (f *forward) SetDeadline(time.Time) error      { return errors.ErrUnsupported }
func (f *forward) SetReadDeadline(time.Time) error  { return errors.ErrUnsupported }
func (f *forward) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }

type addr string

func (addr) Network() string  { return "port-forward" }
func (a addr) String() string { return string(a) }
