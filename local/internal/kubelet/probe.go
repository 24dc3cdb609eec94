package kubelet

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ambit-mesh/ambit/local/internal/runtime"
)

// probes asks the container how it is until ctx ends.
func (c *container) probes(ctx context.Context, run *runtime.Container) {
	if p := c.spec.StartupProbe; p != nil {
		if !c.startup(ctx, run, p) {
			return
		}
		c.set(func() { c.started, c.ready = true, c.spec.ReadinessProbe == nil })
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	if p := c.spec.ReadinessProbe; p != nil {
		wg.Go(func() {
			c.watch(ctx, run, p, func(ok bool, err error) bool {
				c.mu.Lock()
				same := c.ready == ok
				c.mu.Unlock()
				if !same {
					c.set(func() { c.ready = ok })
				}
				if !ok {
					c.w.event(corev1.EventTypeWarning, "Unhealthy", "Readiness probe failed: "+err.Error())
				}
				return true
			})
		})
	}
	if p := c.spec.LivenessProbe; p != nil {
		wg.Go(func() {
			c.watch(ctx, run, p, func(ok bool, err error) bool {
				if !ok {
					c.kill(ctx, run, "Liveness probe failed: "+err.Error())
				}
				return ok
			})
		})
	}
}

// startup waits for the first success; too many failures end the run.
func (c *container) startup(ctx context.Context, run *runtime.Container, p *corev1.Probe) (up bool) {
	c.watch(ctx, run, p, func(ok bool, err error) bool {
		if !ok {
			c.kill(ctx, run, "Startup probe failed: "+err.Error())
		}
		up = ok
		return false
	})
	return up
}

func (c *container) kill(ctx context.Context, run *runtime.Container, why string) {
	c.w.event(corev1.EventTypeWarning, "Unhealthy", why)
	c.set(func() { c.killed = why })
	run.Stop(ctx, c.w.grace())
}

// watch probes until ctx ends or changed says no. It calls changed at each verdict that differs from the last.
func (c *container) watch(ctx context.Context, run *runtime.Container, p *corev1.Probe, changed func(ok bool, err error) bool) {
	period := seconds(p.PeriodSeconds, 10)
	delay := time.NewTimer(time.Duration(p.InitialDelaySeconds) * time.Second)
	defer delay.Stop()
	ok, bad, verdict := 0, 0, 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-delay.C:
		}
		// Probing a starting container more often than asked makes it ready sooner and harms nothing.
		next := period
		if verdict == 0 {
			next = min(period, 250*time.Millisecond)
		}
		err := c.probe(ctx, run, p)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			ok, bad = ok+1, 0
		} else {
			ok, bad = 0, bad+1
		}
		switch {
		case err == nil && verdict != 1 && ok >= most(p.SuccessThreshold, 1):
			verdict = 1
			if !changed(true, nil) {
				return
			}
		case err != nil && verdict != -1 && c.patience(p, bad, verdict, next):
			verdict = -1
			if !changed(false, err) {
				return
			}
			next = period
		}
		delay.Reset(next)
	}
}

// patience tells whether failures are too many. Those of the quick probes of a start count by the time they cover.
func (c *container) patience(p *corev1.Probe, bad, verdict int, every time.Duration) bool {
	limit := most(p.FailureThreshold, 3)
	if verdict != 0 {
		return bad >= limit
	}
	return time.Duration(bad)*every >= time.Duration(limit)*seconds(p.PeriodSeconds, 10)
}

func seconds(n int32, otherwise int) time.Duration {
	return time.Duration(most(n, otherwise)) * time.Second
}

func most(n int32, otherwise int) int {
	if n > 0 {
		return int(n)
	}
	return otherwise
}

// probe asks once.
func (c *container) probe(ctx context.Context, run *runtime.Container, p *corev1.Probe) error {
	ctx, cancel := context.WithTimeout(ctx, seconds(p.TimeoutSeconds, 1))
	defer cancel()
	switch {
	case p.HTTPGet != nil:
		return c.w.httpProbe(ctx, c.spec, p.HTTPGet)
	case p.TCPSocket != nil:
		return c.w.tcpProbe(ctx, c.spec, p.TCPSocket)
	case p.GRPC != nil:
		return c.w.grpcProbe(ctx, p.GRPC)
	case p.Exec != nil:
		return execProbe(ctx, run, p.Exec.Command)
	}
	return errors.New("the probe says neither httpGet, tcpSocket, grpc nor exec")
}

// at is the address that a probe asks.
func (w *worker) at(c corev1.Container, host string, port intstr.IntOrString) (string, error) {
	n := port.IntValue()
	if port.Type == intstr.String {
		n = 0
		for _, p := range c.Ports {
			if p.Name == port.StrVal {
				n = int(p.ContainerPort)
			}
		}
		if v, err := strconv.Atoi(port.StrVal); n == 0 && err == nil {
			n = v
		}
		if n == 0 {
			return "", fmt.Errorf("container %s has no port %q", c.Name, port.StrVal)
		}
	}
	if host == "" {
		host = w.address()
	}
	if _, err := netip.ParseAddr(host); err != nil {
		return "", fmt.Errorf("probe host %q is not an address", host)
	}
	return net.JoinHostPort(host, strconv.Itoa(n)), nil
}

func (w *worker) address() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sandbox == nil {
		return ""
	}
	return w.sandbox.Addrs()[0].String()
}

// client speaks HTTP from the node, one connection for each probe, following no redirect to elsewhere.
func (w *worker) client(p *http.Protocols) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext: w.k.conf.Node.Dial, DisableKeepAlives: p == nil, Protocols: p,
			// As on Kubernetes: a probe asks whether the program works, not who it is.
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func (w *worker) httpProbe(ctx context.Context, c corev1.Container, h *corev1.HTTPGetAction) error {
	addr, err := w.at(c, h.Host, h.Port)
	if err != nil {
		return err
	}
	scheme := "http"
	if h.Scheme == corev1.URISchemeHTTPS {
		scheme = "https"
	}
	path := h.Path
	if path == "" || path[0] != '/' {
		path = "/" + path
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+addr+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "kube-probe/1.36")
	for _, kv := range h.HTTPHeaders {
		if http.CanonicalHeaderKey(kv.Name) == "Host" {
			req.Host = kv.Value
			continue
		}
		req.Header.Add(kv.Name, kv.Value)
	}
	resp, err := w.client(nil).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode >= 400 {
		return fmt.Errorf("HTTP probe failed with statuscode: %d", resp.StatusCode)
	}
	return nil
}

func (w *worker) tcpProbe(ctx context.Context, c corev1.Container, t *corev1.TCPSocketAction) error {
	addr, err := w.at(c, t.Host, t.Port)
	if err != nil {
		return err
	}
	conn, err := w.k.conf.Node.Dial(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return conn.Close()
}

// grpcProbe calls grpc.health.v1.Health/Check: one message each way, each behind five bytes of frame.
func (w *worker) grpcProbe(ctx context.Context, g *corev1.GRPCAction) error {
	addr, err := w.at(corev1.Container{}, "", intstr.FromInt32(g.Port))
	if err != nil {
		return err
	}
	var msg []byte
	if g.Service != nil && *g.Service != "" {
		msg = append(binary.AppendUvarint([]byte{1<<3 | 2}, uint64(len(*g.Service))), *g.Service...)
	}
	body := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(msg))), msg...)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/grpc.health.v1.Health/Check", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("TE", "trailers")
	var h2 http.Protocols
	h2.SetUnencryptedHTTP2(true)
	client := w.client(&h2)
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err != nil {
		return err
	}
	if !serving(answer) {
		return fmt.Errorf("service unhealthy: grpc-status %s%s", resp.Header.Get("Grpc-Status"), resp.Trailer.Get("Grpc-Status"))
	}
	return nil
}

// serving reads a framed HealthCheckResponse: field 1 is the status, and 1 means serving.
func serving(b []byte) bool { return len(b) == 7 && b[0] == 0 && b[5] == 1<<3 && b[6] == 1 }

// execProbe runs a command in the container; exit status 0 is success.
func execProbe(ctx context.Context, run *runtime.Container, argv []string) error {
	cmd, err := run.Exec(runtime.Command{Argv: argv})
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })() // gone already is fine
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("command %q: %w", argv, err)
	}
	return nil
}
