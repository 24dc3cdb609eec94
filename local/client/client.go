// Package client talks to an API server: a local cluster's through its socket, or Kubernetes'.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// APISocket is the API server's socket in a cluster's state directory.
const APISocket = "api.sock"

// maxAnswer bounds what is read of one answer.
const maxAnswer = 256 << 20

// Client of one cluster. It holds no connection open between calls.
type Client struct {
	http *http.Client
	base string
	// failed words an error of a request that got no answer.
	failed func(error) error
	dir    string // of a local cluster
}

// New makes a client of the local cluster whose state is in dir.
func New(dir string) *Client {
	socket := filepath.Join(dir, APISocket)
	c := &Client{dir: dir, base: "http://cluster", http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
		DisableKeepAlives: true,
	}}}
	c.failed = func(err error) error {
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" {
			return c.away(err)
		}
		return err
	}
	return c
}

// Over makes a client of the Kubernetes API server that h reaches at base; failed words an error of a request that got
// no answer. What only a local cluster has, such as its machine's processes, is not there.
func Over(h *http.Client, base string, failed func(error) error) *Client {
	return &Client{http: h, base: strings.TrimSuffix(base, "/"), failed: failed}
}

// StatusError is a refusal of the API server.
type StatusError struct {
	Code    int
	Reason  metav1.StatusReason
	Message string
}

func (e *StatusError) Error() string { return e.Message }

// NotFound tells whether an error says that there is no such object.
func NotFound(err error) bool {
	var s *StatusError
	return errors.As(err, &s) && s.Code == http.StatusNotFound
}

// Result is what became of one applied object.
type Result struct {
	Kind, Group, Namespace, Name string
	// Result is created, configured or unchanged.
	Result string
	// Idle is what of the object is kept and not acted on.
	Idle []string
}

// Apply applies every object of a YAML text, or none. file names it in errors.
func (c *Client) Apply(ctx context.Context, file, namespace string, dryRun bool, yaml []byte) ([]Result, error) {
	q := url.Values{"file": {file}, "namespace": {namespace}}
	if dryRun {
		q.Set("dryRun", "true")
	}
	var out struct{ Results []Result }
	err := c.call(ctx, http.MethodPost, "/ambit/v1/apply?"+q.Encode(), "application/yaml", yaml, &out)
	return out.Results, err
}

// Get reads one object.
func (c *Client) Get(ctx context.Context, k kinds.Kind, namespace, name string) (kinds.Object, error) {
	o := k.New()
	if err := c.call(ctx, http.MethodGet, path(k, namespace, name), "", nil, o); err != nil {
		return nil, err
	}
	return typed(k, o), nil
}

// List reads the objects of a kind in a namespace, or in all of them if it is "", that a label selector admits.
func (c *Client) List(ctx context.Context, k kinds.Kind, namespace, selector string) ([]kinds.Object, error) {
	all, _, err := c.ListAt(ctx, k, Select{Namespace: namespace, Labels: selector})
	return all, err
}

// Delete removes an object. grace is in seconds; negative means the object's own.
func (c *Client) Delete(ctx context.Context, k kinds.Kind, namespace, name string, grace int) error {
	p := path(k, namespace, name)
	if grace >= 0 {
		p += "?gracePeriodSeconds=" + strconv.Itoa(grace)
	}
	return c.call(ctx, http.MethodDelete, p, "", nil, nil)
}

// Patch merges a JSON value into an object (RFC 7386) and gives the result.
func (c *Client) Patch(ctx context.Context, k kinds.Kind, namespace, name string, patch any) (kinds.Object, error) {
	b, err := json.Marshal(patch)
	if err != nil {
		return nil, fmt.Errorf("patch of %s: %w", name, err)
	}
	o := k.New()
	if err := c.call(ctx, http.MethodPatch, path(k, namespace, name), "application/merge-patch+json", b, o); err != nil {
		return nil, err
	}
	return typed(k, o), nil
}

// Problems lists why files of the object directory are not in force.
func (c *Client) Problems(ctx context.Context) ([]string, error) {
	var all []string
	err := c.call(ctx, http.MethodGet, "/ambit/v1/problems", "", nil, &all)
	return all, err
}

// LogOptions choose what to read of a container's log.
type LogOptions struct {
	Container                string
	Follow, Previous, Stamps bool
	// Since leaves out what is older, to the second; 0 is all.
	Since time.Duration
	// Tail is how many lines from the end; negative means all.
	Tail int
}

// Logs reads a container's log until its end, or, followed, until ctx ends.
func (c *Client) Logs(ctx context.Context, namespace, pod string, o LogOptions) (io.ReadCloser, error) {
	q := url.Values{}
	set := func(name string, on bool) {
		if on {
			q.Set(name, "true")
		}
	}
	set("follow", o.Follow)
	set("previous", o.Previous)
	set("timestamps", o.Stamps)
	if o.Container != "" {
		q.Set("container", o.Container)
	}
	if o.Since > 0 {
		q.Set("sinceSeconds", strconv.Itoa(max(1, int(o.Since.Round(time.Second).Seconds()))))
	}
	if o.Tail >= 0 {
		q.Set("tailLines", strconv.Itoa(o.Tail))
	}
	resp, err := c.send(ctx, http.MethodGet, "/api/v1/namespaces/"+namespace+"/pods/"+pod+"/log?"+q.Encode(), "", nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// path is the API's path of an object, or of a list when name is "".
func path(k kinds.Kind, namespace, name string) string {
	p := "/apis/" + k.APIVersion()
	if k.Group == "" {
		p = "/api/" + k.Version
	}
	if k.Namespaced && namespace != "" {
		p += "/namespaces/" + url.PathEscape(namespace)
	}
	p += "/" + k.Plural
	if name != "" {
		p += "/" + url.PathEscape(name)
	}
	return p
}

// typed fills in what lists leave out.
func typed(k kinds.Kind, o kinds.Object) kinds.Object {
	o.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{Group: k.Group, Version: k.Version, Kind: k.Kind})
	return o
}

func (c *Client) call(ctx context.Context, method, path, contentType string, body []byte, out any) error {
	resp, err := c.send(ctx, method, path, contentType, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(out); err != nil {
		return fmt.Errorf("answer of the API server: %w", err)
	}
	return nil
}

func (c *Client) send(ctx context.Context, method, path, contentType string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.failed(err)
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, refusal(resp)
}

func refusal(resp *http.Response) error {
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("answer of the API server: %w", err)
	}
	var st metav1.Status
	if json.Unmarshal(b, &st) == nil && st.Message != "" {
		return &StatusError{resp.StatusCode, st.Reason, st.Message}
	}
	text := strings.TrimSpace(string(b))
	if text == "" {
		text = resp.Status
	}
	return &StatusError{resp.StatusCode, "", text}
}
