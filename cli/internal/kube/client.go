package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"k8s.io/client-go/rest"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/local/client"
)

const (
	// DefaultWithin is how long a pod may take to begin an answer, if nobody says.
	DefaultWithin = 10 * time.Second
	// listTime bounds one list or object, of a cluster of thousands of pods over a slow line.
	listTime = time.Minute
	// pageSize is how many objects are asked for at once.
	pageSize = 500
)

// Client is a cluster's.
type Client struct {
	conf *Config
	rest *rest.Config
	http *http.Client
	base *url.URL
	api  *client.Client
	// Within is how long a pod may take to begin an answer.
	Within time.Duration
	// Unread is told of each object that cannot be read, which is then left out; nil makes it an error.
	Unread func(k kinds.Kind, namespace, name string, err error)
}

// New makes a client; agent is what the API server's log calls us.
func New(c *Config, agent string) (*Client, error) {
	k := &Client{conf: c, rest: c.prepared(agent), Within: DefaultWithin}
	var err error
	if k.http, err = rest.HTTPClientFor(k.rest); err != nil {
		return nil, fmt.Errorf("kubeconfig (%s, context %s): %w", c.From, c.Context, err)
	}
	if k.base, _, err = rest.DefaultServerUrlFor(k.rest); err != nil {
		return nil, fmt.Errorf("kubeconfig (%s, context %s): %w", c.From, c.Context, err)
	}
	k.api = client.Over(k.http, k.base.String(), k.unreachable)
	return k, nil
}

// Get reads one object, in the first of the kind's versions that the server has.
func (c *Client) Get(ctx context.Context, k kinds.Kind, namespace, name string) (kinds.Object, error) {
	ctx, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	var o kinds.Object
	err := c.eachVersion(k, func(k kinds.Kind) (err error) {
		o, err = c.api.Get(ctx, k, namespace, name)
		return err
	})
	return o, err
}

// List reads the objects of a kind in a namespace, or in all of them if it is "", that a label selector admits. There are
// none of a kind that the server does not have.
func (c *Client) List(ctx context.Context, k kinds.Kind, namespace, selector string) ([]kinds.Object, error) {
	ctx, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	s := client.Select{Namespace: namespace, Labels: selector, Page: pageSize}
	if k.Group == "" && k.Kind == "Secret" {
		s.Fields = "type!=helm.sh/release.v1" // a MiB each, and nothing of the mesh
	}
	var all []kinds.Object
	err := c.eachVersion(k, func(k kinds.Kind) error {
		all = nil
		_, err := c.api.Each(ctx, k, s, func(raw json.RawMessage) error {
			o, err := c.read(k, raw)
			if o != nil {
				all = append(all, o)
			}
			return err
		})
		return err
	})
	if coded(err, http.StatusGone) { // it took longer than the server keeps what the list began with
		s.Page, all = 0, nil
		all, _, err = c.api.ListAt(ctx, k, s)
		err = c.refused(err)
	}
	if client.NotFound(err) {
		return nil, nil
	}
	return all, err
}

// read decodes an object of a list. What others may have put into it that we cannot read keeps none of the rest away.
func (c *Client) read(k kinds.Kind, raw json.RawMessage) (kinds.Object, error) {
	o := k.New()
	err := json.Unmarshal(raw, o)
	if err == nil {
		o.GetObjectKind().SetGroupVersionKind(k.New().GetObjectKind().GroupVersionKind())
		return o, nil
	}
	var m struct {
		Metadata struct{ Namespace, Name string }
	}
	if c.Unread == nil || json.Unmarshal(raw, &m) != nil {
		return nil, fmt.Errorf("%s of the API server: %w", k.Kind, err)
	}
	c.Unread(k, m.Metadata.Namespace, m.Metadata.Name, err)
	return nil, nil
}

// eachVersion calls f with the versions of a kind, newest first, until the server has one.
func (c *Client) eachVersion(k kinds.Kind, f func(kinds.Kind) error) error {
	var first error
	for _, v := range k.Versions {
		k.Version = v
		err := f(k)
		if !noSuchVersion(err) {
			return c.refused(err)
		}
		if first == nil {
			first = err
		}
	}
	return c.refused(first)
}

// Logs reads a container's log until its end, or, followed, until ctx ends.
func (c *Client) Logs(ctx context.Context, namespace, pod string, o client.LogOptions) (io.ReadCloser, error) {
	r, err := c.api.Logs(ctx, namespace, pod, o)
	return r, c.refused(err)
}
