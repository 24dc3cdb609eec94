package filter

import (
	"net/http"
	"net/textproto"

	"github.com/ambit-mesh/ambit/api/l7"
)

// Headers applies the header operations of the rule, then those of the chosen destination.
func Headers(next Handler) Handler {
	return HandlerFunc(func(x *Exchange) (*http.Response, error) {
		rule := x.Route.Rule
		for _, op := range []*l7.HeaderOperations{rule.RequestHeaders, x.Destination.GetRequestHeaders()} {
			if host := Apply(x.Request.Header, op); host != "" {
				x.Request.Host = host
			}
		}
		resp, err := next.Serve(x)
		answer := func(h http.Header) {
			Apply(h, x.Destination.GetResponseHeaders())
			Apply(h, rule.ResponseHeaders)
		}
		if err != nil {
			annotate(err, answer) // the rule means every answer, also those of the proxy
			return nil, err
		}
		answer(resp.Header)
		return resp, nil
	})
}

// Apply removes, sets and adds. It returns the new host if the operations name one: Host is no header of a request
// here. Headers that frame a message are never touched.
func Apply(h http.Header, op *l7.HeaderOperations) (host string) {
	for _, name := range op.GetRemove() {
		if name = textproto.CanonicalMIMEHeaderKey(name); !framing(name) {
			h.Del(name)
		}
	}
	for name, v := range op.GetSet() {
		name = textproto.CanonicalMIMEHeaderKey(name)
		switch {
		case name == "Host" || name == ":authority":
			host = v
		case !framing(name):
			h[name] = []string{v}
		}
	}
	for name, v := range op.GetAdd() {
		if name = textproto.CanonicalMIMEHeaderKey(name); !framing(name) && name != "Host" {
			h[name] = append(h[name], v)
		}
	}
	return host
}

func framing(name string) bool {
	switch name {
	case "Connection", "Content-Length", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return len(name) > 0 && name[0] == ':' && name != ":authority"
}
