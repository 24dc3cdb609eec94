package local

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"path/filepath"

	"github.com/ambit-mesh/ambit/lifecycle"
	"github.com/ambit-mesh/ambit/local/client"
	"github.com/ambit-mesh/ambit/local/internal/token"
)

// Gate lets programs that speak to API servers over TLS, such as kubectl, use a cluster.
type Gate struct {
	// State is the cluster's directory.
	State string
	// Port of 127.0.0.1; 0 takes any that is free. Others of the machine reach the port, so every request needs the token
	// that is in Kubeconfig.
	Port int
	// Kubeconfig is the file to write for as long as the gate is open; only this user can read it.
	Kubeconfig string
}

// Serve opens the gate until ctx ends; opened is told its address once it is.
func (g Gate) Serve(ctx context.Context, opened func(addr string)) error {
	pki, err := token.NewServerPKI([]string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	secret := rand.Text()
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", g.Port))
	if err != nil {
		return fmt.Errorf("open the gate: %w", err)
	}
	if err := writeKubeconfig(g.Kubeconfig, g.State, l.Addr().String(), pki.RootPEM, secret); err != nil {
		return errors.Join(err, l.Close())
	}
	opened(l.Addr().String())
	secure := tls.NewListener(l, &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pki.Certificate}, NextProtos: []string{"http/1.1"}})
	err = lifecycle.HTTP{Streams: true, Conns: maxCallers}.Serve(ctx, secure, withToken(secret, toSocket(filepath.Join(g.State, client.APISocket))))
	return errors.Join(err, os.Remove(g.Kubeconfig))
}

// withToken lets requests through that prove the token.
func withToken(secret string, next http.Handler) http.Handler {
	want := []byte("Bearer " + secret)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), want) != 1 {
			http.Error(w, "the token of the kubeconfig is needed", http.StatusUnauthorized)
			return
		}
		r.Header.Del("Authorization")
		next.ServeHTTP(w, r)
	})
}

// toSocket passes requests to the API server's own socket.
func toSocket(path string) http.Handler {
	return &httputil.ReverseProxy{
		FlushInterval: -1, // watches and logs
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = "http", "cluster", "cluster"
		},
		Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, fmt.Sprintf("the local cluster does not answer: %v; is it running? see `ambit local status`", err), http.StatusBadGateway)
		},
	}
}

// Extension is what a context of a gate's kubeconfig carries besides: the directory of its local cluster, by which ambit
// itself finds that without the gate.
const Extension = "ambit-local-cluster"

// writeKubeconfig writes the file by which kubectl finds the gate and proves itself.
func writeKubeconfig(path, state, addr string, root []byte, secret string) error {
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: ambit
contexts:
  - name: ambit
    context:
      cluster: ambit
      user: ambit
      namespace: default
      extensions: [{name: %s, extension: {state: %q}}]
clusters:
  - name: ambit
    cluster: {server: "https://%s", certificate-authority-data: %s}
users:
  - name: ambit
    user: {token: %s}
`, Extension, state, addr, base64.StdEncoding.EncodeToString(root), secret)
	// A file of its own that takes the name: an old one may have other rights, or be a link.
	f, err := os.CreateTemp(filepath.Dir(path), ".kubeconfig-")
	if err != nil {
		return fmt.Errorf("write the kubeconfig: %w", err)
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write the kubeconfig: %w", err), os.Remove(f.Name()))
	}
	return nil
}
