package podwatch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"

	"github.com/ambit-mesh/ambit/node/internal/objects"
)

const (
	backoffFirst = 100 * time.Millisecond
	backoffMost  = 15 * time.Second
)

// errExpired means that the server no longer knows the version to watch from.
var errExpired = errors.New("resource version is too old")

type object interface{ Meta() objects.Meta }

// reflector keeps a copy of one list of the API server: it lists, then watches, and lists again when it must.
type reflector[T object] struct {
	client  *Client
	path    string
	query   url.Values
	log     *slog.Logger
	replace func([]T)
	upsert  func(T)
	remove  func(T)
}

func (r *reflector[T]) run(ctx context.Context) error {
	delay := backoffFirst
	for ctx.Err() == nil {
		started := time.Now()
		err := r.once(ctx)
		if ctx.Err() != nil {
			break
		}
		if time.Since(started) > backoffMost { // it worked for a while
			delay = backoffFirst
		}
		r.log.Warn("watch of the API server ended, will start again", "path", r.path, "in", delay, "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(delay/2 + rand.N(delay/2)):
		}
		delay = min(2*delay, backoffMost)
	}
	return ctx.Err()
}

// once lists, and watches until that fails.
func (r *reflector[T]) once(ctx context.Context) error {
	var list struct {
		Metadata objects.Meta `json:"metadata"`
		Items    []T          `json:"items"`
	}
	if err := r.client.get(ctx, r.path, r.query, &list); err != nil {
		return fmt.Errorf("list: %w", err)
	}
	r.replace(list.Items)
	version := list.Metadata.ResourceVersion
	for {
		if err := r.watch(ctx, &version); err != nil {
			return fmt.Errorf("watch: %w", err)
		}
	}
}

// watch follows changes from a version on and moves it. A clean end by the server is no error.
func (r *reflector[T]) watch(ctx context.Context, version *string) (err error) {
	q := url.Values{"watch": {"true"}, "allowWatchBookmarks": {"true"}, "timeoutSeconds": {"300"}, "resourceVersion": {*version}}
	for k, v := range r.query {
		q[k] = v
	}
	started := time.Now()
	body, err := r.client.do(ctx, http.MethodGet, r.path, q, nil)
	if err != nil {
		if statusOf(err) == http.StatusGone {
			return errExpired
		}
		return err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	limit := &io.LimitedReader{R: body}
	for dec := json.NewDecoder(limit); ; {
		var e struct {
			Type   string          `json:"type"`
			Object json.RawMessage `json:"object"`
		}
		limit.N = maxAnswer
		if err := dec.Decode(&e); err != nil {
			if errors.Is(err, io.EOF) && time.Since(started) > time.Second {
				return nil // its timeout; an end at once is a server that cannot watch
			}
			return err
		}
		if err := r.event(e.Type, e.Object, version); err != nil {
			return err
		}
	}
}

func (r *reflector[T]) event(kind string, raw json.RawMessage, version *string) error {
	if kind == "ERROR" {
		var s struct {
			Code    int    `json:"code"`
			Message string `json:"message"`
		}
		if err := json.Unmarshal(raw, &s); err != nil {
			return fmt.Errorf("read error: %w", err)
		}
		if s.Code == http.StatusGone {
			return errExpired
		}
		return &statusError{s.Code, s.Message}
	}
	var o T
	if err := json.Unmarshal(raw, &o); err != nil {
		return fmt.Errorf("read %s event: %w", kind, err)
	}
	switch kind {
	case "ADDED", "MODIFIED":
		r.upsert(o)
	case "DELETED":
		r.remove(o)
	case "BOOKMARK":
	default:
		return fmt.Errorf("unknown kind of event %q", kind)
	}
	if v := o.Meta().ResourceVersion; v != "" {
		*version = v
	}
	return nil
}
