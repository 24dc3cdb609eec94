package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// Select says which objects of a kind are meant; empty fields mean all.
type Select struct {
	Namespace, Name string
	// Labels and Fields are selectors.
	Labels, Fields string
	// Page is how many objects the server is to send at once.
	Page int
}

func (s Select) query() url.Values {
	q := url.Values{}
	if s.Labels != "" {
		q.Set("labelSelector", s.Labels)
	}
	fields := s.Fields
	if s.Name != "" {
		if fields != "" {
			fields += ","
		}
		fields += "metadata.name=" + s.Name
	}
	if fields != "" {
		q.Set("fieldSelector", fields)
	}
	return q
}

// ListAt lists objects, with the version of the cluster's state from which Watch goes on.
func (c *Client) ListAt(ctx context.Context, k kinds.Kind, s Select) ([]kinds.Object, string, error) {
	var all []kinds.Object
	version, err := c.Each(ctx, k, s, func(raw json.RawMessage) error {
		o := k.New()
		if err := json.Unmarshal(raw, o); err != nil {
			return fmt.Errorf("%s of the API server: %w", k.Kind, err)
		}
		all = append(all, typed(k, o))
		return nil
	})
	return all, version, err
}

// Each gives f the objects of a list as they come, until it fails.
func (c *Client) Each(ctx context.Context, k kinds.Kind, s Select, f func(json.RawMessage) error) (version string, err error) {
	q := s.query()
	if s.Page > 0 {
		q.Set("limit", strconv.Itoa(s.Page))
	}
	for {
		var list struct {
			Metadata metav1.ListMeta
			Items    []json.RawMessage
		}
		if err := c.call(ctx, http.MethodGet, path(k, s.Namespace, "")+"?"+q.Encode(), "", nil, &list); err != nil {
			return "", err
		}
		for _, raw := range list.Items {
			if err := f(raw); err != nil {
				return "", err
			}
		}
		if list.Metadata.Continue == "" {
			return list.Metadata.ResourceVersion, nil
		}
		q.Set("continue", list.Metadata.Continue)
	}
}

// Change is something that became of an object.
type Change struct {
	// Type is ADDED, MODIFIED or DELETED.
	Type   string
	Object kinds.Object
}

// ErrGone means that the server does not know any more what changed since a version: list again.
var ErrGone = errors.New("the changes since then are forgotten")

// Watch tells f of every change since a version, until ctx ends or f fails.
func (c *Client) Watch(ctx context.Context, k kinds.Kind, s Select, version string, f func(Change) error) error {
	q := s.query()
	q.Set("watch", "true")
	q.Set("resourceVersion", version)
	resp, err := c.send(ctx, http.MethodGet, path(k, s.Namespace, "")+"?"+q.Encode(), "", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	in := json.NewDecoder(resp.Body)
	for {
		var e struct {
			Type   string
			Object json.RawMessage
		}
		if err := in.Decode(&e); err != nil {
			if ctx.Err() != nil || errors.Is(err, io.EOF) {
				return ctx.Err()
			}
			return fmt.Errorf("watch %s: %w", k.Plural, err)
		}
		switch e.Type {
		case "BOOKMARK":
			continue
		case "ERROR":
			var st metav1.Status
			if json.Unmarshal(e.Object, &st) == nil && st.Code == http.StatusGone {
				return ErrGone
			}
			return fmt.Errorf("watch %s: %s", k.Plural, e.Object)
		}
		o := k.New()
		if err := json.Unmarshal(e.Object, o); err != nil {
			return fmt.Errorf("%s of the API server: %w", k.Kind, err)
		}
		if err := f(Change{e.Type, typed(k, o)}); err != nil {
			return err
		}
	}
}

// PatchAs changes an object by a patch of a content type and gives the result.
func (c *Client) PatchAs(ctx context.Context, k kinds.Kind, namespace, name, contentType string, patch []byte) (kinds.Object, error) {
	o := k.New()
	if err := c.call(ctx, http.MethodPatch, path(k, namespace, name), contentType, patch, o); err != nil {
		return nil, err
	}
	return typed(k, o), nil
}

// Replace puts an object in the place of the present one, if that has still the same version.
func (c *Client) Replace(ctx context.Context, k kinds.Kind, namespace string, o kinds.Object) (kinds.Object, error) {
	b, err := kinds.EncodeJSON(o)
	if err != nil {
		return nil, err
	}
	out := k.New()
	if err := c.call(ctx, http.MethodPut, path(k, namespace, o.GetName()), "application/json", b, out); err != nil {
		return nil, err
	}
	return typed(k, out), nil
}
