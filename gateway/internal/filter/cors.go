package filter

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/ambit-mesh/ambit/gateway/internal/table"
)

// CORS answers the preflights of browsers and marks responses that other origins may read.
func CORS(next Handler) Handler {
	return HandlerFunc(func(x *Exchange) (*http.Response, error) {
		c := x.Route.Rule.CORS
		origins := x.Request.Header["Origin"]
		if c == nil || len(origins) != 1 {
			return next.Serve(x)
		}
		allowed := c.Admits(origins[0])
		if preflight(x.Request) && (allowed || !c.GetForwardUnmatched()) {
			x.Record.Details = "direct_response"
			resp := reply(http.StatusOK, "")
			if allowed {
				permit(resp.Header, c, origins[0])
			}
			return resp, nil
		}
		resp, err := next.Serve(x)
		switch {
		case !allowed:
		case err != nil:
			annotate(err, func(h http.Header) { reveal(h, c, origins[0]) })
		default:
			reveal(resp.Header, c, origins[0])
		}
		return resp, err
	})
}

func preflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && len(r.Header["Access-Control-Request-Method"]) > 0
}

// permit tells a browser what it may ask for.
func permit(h http.Header, c *table.CORS, origin string) {
	h.Set("Access-Control-Allow-Origin", origin)
	list(h, "Access-Control-Allow-Methods", c.GetMethods())
	list(h, "Access-Control-Allow-Headers", c.GetHeaders())
	if d := c.GetMaxAge(); d != nil {
		h.Set("Access-Control-Max-Age", strconv.FormatInt(int64(d.AsDuration().Seconds()), 10))
	}
	if c.GetCredentials() {
		h.Set("Access-Control-Allow-Credentials", "true")
	}
}

// reveal lets a page of the origin read a response. What a backend says about it itself is replaced.
func reveal(h http.Header, c *table.CORS, origin string) {
	h.Set("Access-Control-Allow-Origin", origin)
	if c.GetCredentials() {
		h.Set("Access-Control-Allow-Credentials", "true")
	}
	list(h, "Access-Control-Expose-Headers", c.GetExpose())
}

func list(h http.Header, name string, values []string) {
	if len(values) > 0 {
		h.Set(name, strings.Join(values, ","))
	}
}
