package filter

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// IsGRPC reports whether a message is one of gRPC.
func IsGRPC(h http.Header) bool {
	rest, ok := strings.CutPrefix(h.Get("Content-Type"), "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// grpcStatus is what a caller of gRPC is told in place of an HTTP status (gRPC's own table).
func grpcStatus(status int) int {
	switch status {
	case http.StatusBadRequest:
		return 13
	case http.StatusUnauthorized:
		return 16
	case http.StatusForbidden:
		return 7
	case http.StatusNotFound:
		return 12
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return 14
	}
	return 2
}

// statusOfGRPC is the HTTP status that stands for one of gRPC, for callers who do not speak it.
func statusOfGRPC(code uint32) int {
	switch code {
	case 0:
		return http.StatusOK
	case 1:
		return 499
	case 3, 9, 11:
		return http.StatusBadRequest
	case 4:
		return http.StatusGatewayTimeout
	case 5:
		return http.StatusNotFound
	case 6, 10:
		return http.StatusConflict
	case 7:
		return http.StatusForbidden
	case 8:
		return http.StatusTooManyRequests
	case 12:
		return http.StatusNotImplemented
	case 14:
		return http.StatusServiceUnavailable
	case 16:
		return http.StatusUnauthorized
	}
	return http.StatusInternalServerError
}

// asGRPC turns a response of the proxy's own into what a caller of gRPC can read: trailers alone.
func asGRPC(resp *http.Response, body string) *http.Response {
	if resp.Header.Get("Grpc-Status") == "" {
		resp.Header.Set("Grpc-Status", strconv.Itoa(grpcStatus(resp.StatusCode)))
	}
	resp.Header.Set("Content-Type", "application/grpc")
	if body != "" {
		resp.Header.Set("Grpc-Message", percent(body))
	}
	resp.StatusCode, resp.Body, resp.ContentLength = http.StatusOK, http.NoBody, 0
	return resp
}

// percent escapes what may not stand in grpc-message.
func percent(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c > '~' || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
