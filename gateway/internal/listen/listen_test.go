package listen

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// FuzzHead: what we read as one request, net/http reads as the same request.
func FuzzHead(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "POST /x?y HTTP/1.0\r\nContent-Length: 3\r\n\r\n", "\r\nGET http://a/b HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nX: \t y \r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		head, err := readHead(bufio.NewReader(bytes.NewReader(in)))
		if err != nil {
			return
		}
		req, fr, err := parseHead(head)
		if err != nil {
			var r *refusal
			if !errors.As(err, &r) || r.status < 400 || r.status > 505 {
				t.Fatalf("error %v of %q is no refusal", err, head)
			}
			return
		}
		std, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(append(bytes.Clone(head), "\r\n"...))))
		if err != nil {
			return // stricter than we are
		}
		defer std.Body.Close()
		if std.Method != req.Method || std.ContentLength != req.ContentLength || fr.chunked != (len(std.TransferEncoding) > 0) {
			t.Fatalf("%q: we read %s, %d; net/http %s, %d", head, req.Method, req.ContentLength, std.Method, std.ContentLength)
		}
		if std.Host != "" && !strings.EqualFold(std.Host, req.Host) {
			t.Fatalf("%q: we read host %q, net/http %q", head, req.Host, std.Host)
		}
		for name, v := range std.Header {
			if name != "Content-Length" && name != "Trailer" && name != "Transfer-Encoding" && strings.Join(req.Header[name], "\n") != strings.Join(v, "\n") {
				t.Fatalf("%q: we read %s %q, net/http %q", head, name, req.Header[name], v)
			}
		}
	})
}

// FuzzChunked: what we read of a chunked body, net/http reads as well.
func FuzzChunked(f *testing.F) {
	for _, s := range []string{"3\r\nabc\r\n0\r\n\r\n", "A;x=y\r\n0123456789\r\n0\r\nT: 1\r\n\r\n", "0\r\n\r\n", "1\nx\r\n0\r\n\r\n", "00000000001\r\na\r\n0\r\n\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 1<<16 {
			return
		}
		client, server := net.Pipe()
		client.Close()
		b := newBody(&conn{nc: server, br: bufio.NewReader(bytes.NewReader(in)), s: &Server{}}, framing{chunked: true}, false)
		b.c.watched = make(chan error) // nothing watches in this test
		got, err := io.ReadAll(b)
		server.Close()
		if err != nil {
			return
		}
		std, err := http.ReadRequest(bufio.NewReader(io.MultiReader(strings.NewReader("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"), bytes.NewReader(in))))
		if err != nil {
			t.Fatal(err)
		}
		want, err := io.ReadAll(std.Body)
		if err != nil || !bytes.Equal(want, got) {
			t.Fatalf("%q: we read %q, net/http %q, %v", in, got, want, err)
		}
	})
}
