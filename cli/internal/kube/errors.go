package kube

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/ambit-mesh/ambit/local/client"
)

// unreachable words an error of a request that got no answer.
func (c *Client) unreachable(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // the address is told below
	}
	return fmt.Errorf("cluster %s (%s, of %s) does not answer: %w; is it the right one? --context NAME or --kubeconfig FILE names another, --local the cluster of this machine",
		c.conf.Context, c.rest.Host, c.conf.From, err)
}

// refused adds to a refusal of the API server what to do about it.
func (c *Client) refused(err error) error {
	switch {
	case coded(err, http.StatusUnauthorized):
		return fmt.Errorf("cluster %s does not take the credentials of %s (%w): log in again", c.conf.Context, c.conf.From, err)
	case coded(err, http.StatusForbidden):
		return fmt.Errorf("%w; docs/commands.md has the rights that these commands need", err)
	}
	return err
}

func coded(err error, code int) bool {
	var s *client.StatusError
	return errors.As(err, &s) && s.Code == code
}

// noSuchVersion tells whether an error says that the server has no such version of a kind, rather than no such object.
func noSuchVersion(err error) bool {
	var s *client.StatusError
	return errors.As(err, &s) && s.Code == http.StatusNotFound && (s.Reason == "" || strings.Contains(s.Message, "could not find the requested resource"))
}
