package podwatch

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/node/internal/objects"
)

// maxAnswer bounds one answer, or one event of a watch, of the API server.
const maxAnswer = 64 << 20

// maxIdle is how many connections are kept for further requests: as many as come at once when a namespace joins the mesh.
const maxIdle = 16

// Client speaks to the API server.
type Client struct {
	base  string
	token string // path, read for every request: kubelet rotates it
	http  *http.Client
}

// ClientConfig says where the API server is.
type ClientConfig struct {
	URL       string // https://10.96.0.1:443
	TokenFile string // "" for none
	CAFile    string // "" for the system's roots
}

// NewClient makes a client; it connects when it is used.
func NewClient(c ClientConfig) (*Client, error) {
	if u, err := url.Parse(c.URL); err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("API server address %q: not a URL https://host:port", c.URL) // the token must not be readable on the way
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read root certificates of the API server: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read root certificates of the API server: none in %s", c.CAFile)
		}
	}
	dialer := &net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}
	return &Client{base: strings.TrimSuffix(c.URL, "/"), token: c.TokenFile, http: &http.Client{CheckRedirect: noRedirect, Transport: &http.Transport{
		DialContext: dialer.DialContext, TLSClientConfig: conf, TLSHandshakeTimeout: 5 * time.Second,
		ResponseHeaderTimeout: 30 * time.Second, MaxIdleConnsPerHost: maxIdle, IdleConnTimeout: time.Minute,
		ForceAttemptHTTP2: false, // a watch and a request share nothing, and HTTP/2 would cost memory
	}}}, nil
}

// noRedirect: the API server answers itself.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// statusError is an answer that is not a success.
type statusError struct {
	code int
	text string
}

func (e *statusError) Error() string {
	return fmt.Sprintf("API server answered %d: %s", e.code, e.text)
}

func statusOf(err error) int {
	if s, ok := errors.AsType[*statusError](err); ok {
		return s.code
	}
	return 0
}

// NotFound reports whether the API server said that there is no such object.
func NotFound(err error) bool { return statusOf(err) == http.StatusNotFound }

// do asks with the agent's own token.
func (c *Client) do(ctx context.Context, method, path string, query url.Values, body []byte) (io.ReadCloser, error) {
	token := ""
	if c.token != "" {
		b, err := os.ReadFile(c.token)
		if err != nil {
			return nil, fmt.Errorf("read own token: %w", err)
		}
		token = strings.TrimSpace(string(b))
	}
	return c.doAs(ctx, token, method, path, query, body)
}

func (c *Client) doAs(ctx context.Context, token, method, path string, query url.Values, body []byte) (io.ReadCloser, error) {
	u := c.base + path
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, u, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	switch method {
	case http.MethodPatch:
		req.Header.Set("Content-Type", "application/merge-patch+json")
	case http.MethodPost:
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 != 2 {
		text, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return nil, errors.Join(&statusError{resp.StatusCode, strings.TrimSpace(string(text))}, err, resp.Body.Close())
	}
	return resp.Body, nil
}

// get reads one object.
func (c *Client) get(ctx context.Context, path string, query url.Values, into any) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	body, err := c.do(ctx, http.MethodGet, path, query, nil)
	if err != nil {
		return err
	}
	return errors.Join(json.NewDecoder(io.LimitReader(body, maxAnswer)).Decode(into), finish(body))
}

// finish reads an answer to its end, so that its connection serves the next request: to make another costs both sides far more
// than the request. What goes on for long is no answer's end.
func finish(body io.ReadCloser) error {
	_, err := io.CopyN(io.Discard, body, 1<<20)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return errors.Join(err, body.Close())
}

// Pod reads one pod: its creation may not have reached the watch yet.
func (c *Client) Pod(ctx context.Context, k objects.Key) (objects.Pod, error) {
	var o objects.PodJSON
	if err := c.get(ctx, podPath(k), nil, &o); err != nil {
		return objects.Pod{}, fmt.Errorf("read pod %s: %w", k, err)
	}
	return o.Pod(), nil
}

// Namespace reads one namespace.
func (c *Client) Namespace(ctx context.Context, name string) (objects.Namespace, error) {
	var o objects.NamespaceJSON
	if err := c.get(ctx, "/api/v1/namespaces/"+url.PathEscape(name), nil, &o); err != nil {
		return objects.Namespace{}, fmt.Errorf("read namespace %s: %w", name, err)
	}
	return o.Namespace(), nil
}

// DaemonSetRemoved reports whether somebody took a daemon set away, or is about to. An answer that says neither is an error.
func (c *Client) DaemonSetRemoved(ctx context.Context, namespace, name string) (bool, error) {
	var o struct {
		Metadata struct {
			Name    string `json:"name"`
			Deleted string `json:"deletionTimestamp"`
		} `json:"metadata"`
	}
	err := c.get(ctx, "/apis/apps/v1/namespaces/"+url.PathEscape(namespace)+"/daemonsets/"+url.PathEscape(name), nil, &o)
	switch {
	case NotFound(err):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("read daemon set %s/%s: %w", namespace, name, err)
	case o.Metadata.Name != name:
		return false, fmt.Errorf("read daemon set %s/%s: the API server answers about %q", namespace, name, o.Metadata.Name)
	}
	return o.Metadata.Deleted != "", nil
}

// Annotate sets an annotation of a pod, or removes it if the value is "".
func (c *Client) Annotate(ctx context.Context, k objects.Key, name, value string) error {
	var v *string
	if value != "" {
		v = &value
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]*string{name: v}}})
	if err != nil {
		return fmt.Errorf("annotate pod %s: %w", k, err)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	// The right to change a pod's status is smaller than the right to change the pod.
	body, err := c.do(ctx, http.MethodPatch, podPath(k)+"/status", nil, patch)
	if code := statusOf(err); code == http.StatusNotFound || code == http.StatusMethodNotAllowed || code == http.StatusForbidden {
		body, err = c.do(ctx, http.MethodPatch, podPath(k), nil, patch)
	}
	if err != nil {
		return fmt.Errorf("annotate pod %s: %w", k, err)
	}
	return finish(body)
}

func podPath(k objects.Key) string {
	return "/api/v1/namespaces/" + url.PathEscape(k.Namespace) + "/pods/" + url.PathEscape(k.Name)
}
