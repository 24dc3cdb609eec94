package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/linux/netns"
	"github.com/ambit-mesh/ambit/linux/sock"
	"github.com/ambit-mesh/ambit/local/internal/store"
)

// podRequestTime bounds one request to a pod.
const podRequestTime = 30 * time.Second

// podProxy leads requests of the machine to a port of a pod's loopback, as port-forward does on Kubernetes: debug
// servers answer nobody else. open gives the pod's network namespace.
func podProxy(open func(namespace, pod string) (*netns.Namespace, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		pod, text, _ := strings.Cut(r.PathValue("pod"), ":")
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil || port == 0 {
			http.Error(w, fmt.Sprintf("%q: write the pod as NAME:PORT", r.PathValue("pod")), http.StatusBadRequest)
			return
		}
		ns, err := open(r.PathValue("namespace"), pod)
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		defer ns.Close()
		ctx, cancel := context.WithTimeout(r.Context(), podRequestTime)
		defer cancel()
		there := httputil.ReverseProxy{
			Transport: &http.Transport{
				DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dialLoopback(ctx, ns, uint16(port)) },
				DisableKeepAlives: true, ResponseHeaderTimeout: podRequestTime,
			},
			Rewrite: func(p *httputil.ProxyRequest) {
				p.Out.URL = &url.URL{
					Scheme: "http", Host: net.JoinHostPort("localhost", text), Path: "/" + r.PathValue("path"), RawQuery: r.URL.RawQuery,
				}
				p.Out.Host = p.Out.URL.Host
			},
			ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
				http.Error(w, fmt.Sprintf("port %d of pod %s: %v", port, pod, err), http.StatusBadGateway)
			},
		}
		there.ServeHTTP(w, r.WithContext(ctx))
	}
}

// dialLoopback connects to a port of a namespace's loopback of either family.
func dialLoopback(ctx context.Context, ns *netns.Namespace, port uint16) (net.Conn, error) {
	var failed []error
	for _, at := range []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()} {
		c, err := sock.Dial(ctx, ns, netip.AddrPort{}, netip.AddrPortFrom(at, port), sock.Options{})
		if err == nil {
			return c, nil
		}
		failed = append(failed, err)
	}
	return nil, errors.Join(failed...)
}

// podNamespace opens the network namespace that a running pod is in.
func (c *inside) podNamespace(namespace, pod string) (*netns.Namespace, error) {
	p, err := store.Get[*corev1.Pod](c.store, namespace, pod)
	if err != nil {
		return nil, err
	}
	k, err := c.kubeletOf(p)
	if err != nil {
		return nil, err
	}
	running, err := k.Container(namespace, pod, "")
	if err != nil {
		return nil, err
	}
	return netns.Open(fmt.Sprintf("/proc/%d/ns/net", running.PID()))
}
