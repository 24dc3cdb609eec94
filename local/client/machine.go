package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
)

// Segment is one TCP segment with payload, seen between two nodes.
type Segment struct {
	From, To netip.AddrPort
	Payload  []byte
}

// Capture streams what crosses the wire between nodes into f, until ctx ends. It returns once the capture runs; wait
// gives its end.
func (c *Client) Capture(ctx context.Context, f func(Segment)) (wait func() error, err error) {
	resp, err := c.send(ctx, http.MethodGet, "/ambit/v1/capture", "", nil)
	if err != nil {
		return nil, err
	}
	done := make(chan error, 1)
	go func() {
		defer resp.Body.Close()
		in := json.NewDecoder(resp.Body)
		for {
			var s Segment
			if err := in.Decode(&s); err != nil {
				if ctx.Err() != nil {
					err = nil
				}
				done <- err
				return
			}
			f(s)
		}
	}()
	return func() error { return <-done }, nil
}

// Process is a process of the cluster.
type Process struct {
	PID int
	// Pod is namespace/name, or "" for the cluster's own.
	Pod, Container string
	// RSS is resident memory in bytes; PSS counts shared pages in proportion, 0 when unknown.
	RSS, PSS int64
}

// Processes lists the cluster's processes.
func (c *Client) Processes(ctx context.Context) ([]Process, error) {
	var all []Process
	err := c.call(ctx, http.MethodGet, "/ambit/v1/processes", "", nil, &all)
	return all, err
}

// Plug puts a node's cable to the others in, or pulls it out.
func (c *Client) Plug(ctx context.Context, node string, in bool) error {
	cable := "out"
	if in {
		cable = "in"
	}
	return c.call(ctx, http.MethodPost, "/ambit/v1/nodes/"+url.PathEscape(node)+"/"+cable, "", nil, nil)
}

// Signal sends a signal, by name (KILL, STOP, CONT, ...), to the first process of a pod's container, the first if "".
func (c *Client) Signal(ctx context.Context, namespace, pod, container, signal string) error {
	if container == "" {
		container = "-"
	}
	return c.call(ctx, http.MethodPost, "/ambit/v1/pods/"+url.PathEscape(namespace)+"/"+url.PathEscape(pod)+"/"+url.PathEscape(container)+"/"+url.PathEscape(signal), "", nil, nil)
}

// Pod makes a request to a port of a pod's loopback, where debug servers are. path may have a query.
func (c *Client) Pod(ctx context.Context, method, namespace, pod string, port int, path string) ([]byte, error) {
	to := fmt.Sprintf("/api/v1/namespaces/%s/pods/%s:%d/proxy%s", url.PathEscape(namespace), url.PathEscape(pod), port, path)
	resp, err := c.send(ctx, method, to, "", nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("answer of pod %s: %w", pod, err)
	}
	if len(b) > maxAnswer {
		return nil, fmt.Errorf("answer of pod %s: more than %d MiB", pod, maxAnswer>>20)
	}
	return b, nil
}

// IngressURL is where the ingress gateway is reachable from this machine.
func (c *Client) IngressURL(ctx context.Context) (string, error) {
	var v struct{ URL string }
	if err := c.call(ctx, http.MethodGet, "/ambit/v1/ingress", "", nil, &v); err != nil {
		return "", err
	}
	if v.URL == "" {
		return "", fmt.Errorf("the cluster says no address for its ingress gateway")
	}
	return v.URL, nil
}
