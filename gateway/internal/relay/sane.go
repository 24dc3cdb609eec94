package relay

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/ambit-mesh/ambit/gateway/internal/filter"
	"github.com/ambit-mesh/ambit/gateway/internal/listen"
)

// maxHeaders is how many header fields a request may have (Envoy's default).
const maxHeaders = 100

// sane refuses what HTTP/2 lets through and the reader of HTTP/1 does not: beyond this point both are the same.
func sane(r *http.Request) error {
	if r.ProtoMajor < 2 {
		return nil // package listen was as strict
	}
	bad := func(why string) error {
		return &filter.Failure{Status: http.StatusBadRequest, Details: "http2.invalid.header.field", Cause: errors.New(why)}
	}
	if !listen.Token(r.Method) {
		return bad("method")
	}
	n := 0
	for name, values := range r.Header {
		n += len(values)
		for _, v := range values {
			if !utf8.ValidString(v) {
				return bad(name + " is not UTF-8")
			}
		}
	}
	if n > maxHeaders {
		return &filter.Failure{Status: http.StatusRequestHeaderFieldsTooLarge, Details: "http2.too_many_headers"}
	}
	if hosts := r.Header["Host"]; len(hosts) > 1 || len(hosts) == 1 && !strings.EqualFold(hosts[0], r.Host) {
		return bad(":authority and host differ")
	}
	delete(r.Header, "Host")
	lengths := r.Header["Content-Length"]
	if len(lengths) == 0 {
		return nil
	}
	length, err := strconv.ParseUint(lengths[0], 10, 63)
	if err != nil || len(lengths) > 1 || strings.HasPrefix(lengths[0], "+") || int64(length) != r.ContentLength {
		return bad("content-length")
	}
	return nil
}
