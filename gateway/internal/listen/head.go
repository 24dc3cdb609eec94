// Package listen accepts clients' connections and reads HTTP requests from them.
package listen

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Limits of a request's head (SECURITY: 64 KiB of headers; the count is Envoy's default).
const (
	maxHead    = 64 << 10
	maxHeaders = 100
)

// refusal is why a request is answered without being looked at further. The connection is closed after it: nothing
// that follows can be trusted to begin where we would think.
type refusal struct {
	status int
	why    string
}

func (r *refusal) Error() string { return fmt.Sprintf("%d: %s", r.status, r.why) }

// Malformed tells that the fault is the client's.
func (r *refusal) Malformed() bool { return true }

func bad(why string) error { return &refusal{http.StatusBadRequest, why} }

// readHead reads the bytes of one head, up to its empty line, which is not in the result.
func readHead(br *bufio.Reader) ([]byte, error) {
	var head []byte
	empty := 0
	for {
		line, err := br.ReadSlice('\n')
		head = append(head, line...)
		if len(head) > maxHead {
			return nil, &refusal{http.StatusRequestHeaderFieldsTooLarge, "head is larger than 64 KiB"}
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			if err == io.EOF && len(head) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		if len(head) == 2 && head[0] == '\r' && empty == 0 {
			head, empty = head[:0], 1 // one empty line before a request is allowed (RFC 9112, 2.2)
			continue
		}
		if bytes.HasSuffix(head, []byte("\r\n\r\n")) {
			return head[:len(head)-2], nil
		}
		if bytes.HasSuffix(head, []byte("\n\n")) || bytes.HasSuffix(head, []byte("\n\r\n")) && !bytes.HasSuffix(head, []byte("\r\n\r\n")) {
			return nil, bad("a line ends without CR")
		}
		if len(head) == 2 || len(head) == 1 {
			return nil, bad("empty request")
		}
	}
}

// framing says where a request's body ends.
type framing struct {
	chunked bool
	length  int64
}

// parseHead reads a head strictly: what two programs could read in two ways is refused. The request's RequestURI is in
// origin form; its URL holds the same, not yet canonical.
func parseHead(head []byte) (*http.Request, framing, error) {
	first, rest, ok := cutLine(head)
	if !ok {
		return nil, framing{}, bad("request line")
	}
	req, err := parseRequestLine(first)
	if err != nil {
		return nil, framing{}, err
	}
	h := http.Header{}
	for n := 0; len(rest) > 0; n++ {
		if n == maxHeaders {
			return nil, framing{}, &refusal{http.StatusRequestHeaderFieldsTooLarge, "more than 100 headers"}
		}
		var line []byte
		if line, rest, ok = cutLine(rest); !ok {
			return nil, framing{}, bad("a line ends without CR LF")
		}
		name, value, err := parseField(line)
		if err != nil {
			return nil, framing{}, err
		}
		h[name] = append(h[name], value)
	}
	req.Header = h
	if err := takeHost(req); err != nil {
		return nil, framing{}, err
	}
	f, err := takeFraming(req)
	return req, f, err
}

func cutLine(b []byte) (line, rest []byte, ok bool) {
	i := bytes.IndexByte(b, '\n')
	if i < 1 || b[i-1] != '\r' || bytes.IndexByte(b[:i-1], '\r') >= 0 {
		return nil, nil, false
	}
	return b[:i-1], b[i+1:], true
}

func parseRequestLine(line []byte) (*http.Request, error) {
	method, rest, ok := strings.Cut(string(line), " ")
	target, proto, ok2 := strings.Cut(rest, " ")
	if !ok || !ok2 || !Token(method) || target == "" {
		return nil, bad("request line")
	}
	req := &http.Request{Method: method, Proto: proto, ProtoMajor: 1, RequestURI: target}
	switch proto {
	case "HTTP/1.1":
		req.ProtoMinor = 1
	case "HTTP/1.0":
	default:
		if strings.HasPrefix(proto, "HTTP/") && len(proto) == len("HTTP/1.1") {
			return nil, &refusal{http.StatusHTTPVersionNotSupported, "protocol version"}
		}
		return nil, bad("protocol version")
	}
	if method == http.MethodConnect {
		return nil, &refusal{http.StatusMethodNotAllowed, "CONNECT is not served here"}
	}
	for i := 0; i < len(target); i++ {
		if target[i] <= ' ' || target[i] == 0x7f {
			return nil, bad("request target")
		}
	}
	return req, nil
}

func parseField(line []byte) (name, value string, err error) {
	i := bytes.IndexByte(line, ':')
	if i < 1 || !Token(string(line[:i])) {
		return "", "", bad("header name") // also a folded line, and a blank before the colon
	}
	v := bytes.Trim(line[i+1:], " \t")
	for _, c := range v {
		if c < ' ' && c != '\t' || c == 0x7f {
			return "", "", bad("header value")
		}
	}
	if !utf8.Valid(v) {
		return "", "", bad("header value is not UTF-8")
	}
	return textproto.CanonicalMIMEHeaderKey(string(line[:i])), string(v), nil
}

// takeHost moves the host from the headers, and from a target in absolute form, into the request.
func takeHost(req *http.Request) error {
	hosts := req.Header["Host"]
	if len(hosts) > 1 || len(hosts) == 0 && req.ProtoMinor == 1 {
		return bad("one Host header is required")
	}
	if len(hosts) == 1 {
		req.Host = hosts[0]
		delete(req.Header, "Host")
	}
	if req.RequestURI[0] != '/' && req.RequestURI != "*" {
		scheme, rest, ok := strings.Cut(req.RequestURI, "://")
		if !ok || !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https") {
			return bad("request target")
		}
		end := strings.IndexAny(rest, "/?")
		if end < 0 {
			end = len(rest)
		}
		if req.Host != "" && !strings.EqualFold(rest[:end], req.Host) {
			return bad("Host header and request target differ")
		}
		req.Host = rest[:end]
		if req.RequestURI = rest[end:]; req.RequestURI == "" || req.RequestURI[0] == '?' {
			req.RequestURI = "/" + req.RequestURI
		}
	}
	path, query, _ := strings.Cut(req.RequestURI, "?")
	req.URL = &url.URL{Path: path, RawQuery: query}
	return nil
}

// takeFraming decides where the body ends. A message that names both ways, or one of them twice, is refused.
func takeFraming(req *http.Request) (framing, error) {
	te, cl := req.Header["Transfer-Encoding"], req.Header["Content-Length"]
	delete(req.Header, "Transfer-Encoding")
	switch {
	case len(te) > 0 && (len(cl) > 0 || len(te) > 1 || !strings.EqualFold(te[0], "chunked") || req.ProtoMinor == 0):
		return framing{}, bad("transfer encoding")
	case len(te) > 0:
		req.ContentLength = -1
		req.TransferEncoding = []string{"chunked"}
		return framing{chunked: true}, nil
	case len(cl) > 1:
		return framing{}, bad("several content lengths")
	case len(cl) == 1:
		n, err := parseLength(cl[0])
		if err != nil {
			return framing{}, err
		}
		req.ContentLength = n
		return framing{length: n}, nil
	}
	return framing{}, nil
}

func parseLength(s string) (int64, error) {
	if s == "" || len(s) > 18 {
		return 0, bad("content length")
	}
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, bad("content length")
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, bad("content length")
	}
	return n, nil
}

// Token reports whether a string can be a method or the name of a header (RFC 9110, 5.6.2).
func Token(s string) bool {
	if s == "" {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0 {
			continue
		}
		return false
	}
	return true
}
