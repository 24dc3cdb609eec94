package podwatch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// maxToken is more than any token has.
const maxToken = 1 << 20

// TokenOf asks for a token of a service account, bound to nothing and for the API server itself. ends is what the server made of
// the life that was asked for: it may give less, or more.
func (c *Client) TokenOf(ctx context.Context, namespace, account string, life time.Duration) (token string, ends time.Time, err error) {
	ask, err := json.Marshal(map[string]any{
		"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": map[string]any{"expirationSeconds": int64(life / time.Second)},
	})
	if err != nil {
		return "", ends, err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	body, err := c.do(ctx, http.MethodPost, accountPath(namespace, account)+"/token", nil, ask)
	if err != nil {
		return "", ends, fmt.Errorf("token of service account %s/%s: %w", namespace, account, err)
	}
	var o struct {
		Status struct {
			Token string    `json:"token"`
			Ends  time.Time `json:"expirationTimestamp"`
		} `json:"status"`
	}
	err = errors.Join(json.NewDecoder(io.LimitReader(body, maxToken)).Decode(&o), finish(body))
	if err == nil && (o.Status.Token == "" || strings.ContainsFunc(o.Status.Token, func(r rune) bool { return r <= ' ' || r >= 0x7f })) {
		err = errors.New("the API server's answer holds none")
	}
	if err == nil && !o.Status.Ends.After(time.Now()) {
		err = fmt.Errorf("the API server gives one that ended at %s: compare the clocks", o.Status.Ends.Format(time.RFC3339))
	}
	if err != nil {
		return "", ends, fmt.Errorf("token of service account %s/%s: %w", namespace, account, err)
	}
	return o.Status.Token, o.Status.Ends, nil
}

// Serves reports whether a token may read pods and namespaces, by asking with it for a pod of its own namespace that need not be.
func (c *Client) Serves(ctx context.Context, token, namespace string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	ns := "/api/v1/namespaces/" + url.PathEscape(namespace)
	for _, path := range []string{ns, ns + "/pods/none"} {
		body, err := c.doAs(ctx, token, http.MethodGet, path, nil, nil)
		if err == nil {
			err = finish(body)
		}
		if err != nil && !NotFound(err) { // who may not ask is not told either whether it is there
			return err
		}
	}
	return nil
}

// Refused reports whether the API server said that a token is not valid, or may not do what was asked.
func Refused(err error) bool {
	code := statusOf(err)
	return code == http.StatusUnauthorized || code == http.StatusForbidden
}

func accountPath(namespace, account string) string {
	return "/api/v1/namespaces/" + url.PathEscape(namespace) + "/serviceaccounts/" + url.PathEscape(account)
}
