package gateway

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

const host = "Host: a\r\n"

// Each message here could be read in two ways by two programs. None of its bytes may reach the backend.
func TestAmbiguousMessagesAreRefused(t *testing.T) {
	at, received := web(t, echo)
	b := start(t, nil)
	b.apply(backend("web", at), route("*", to("web")), listener(8080, "*"))
	gw := b.at(8080)
	post := func(headers string) string {
		return "POST / HTTP/1.1\r\n" + host + headers + "\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n" + host + "\r\n"
	}
	cases := map[string]string{
		"RT-01 CL.TE":              post("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n"),
		"RT-01 TE.CL":              post("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n"),
		"RT-02 two lengths":        post("Content-Length: 3\r\nContent-Length: 5\r\n"),
		"RT-02 equal lengths":      post("Content-Length: 5\r\nContent-Length: 5\r\n"),
		"RT-02 list":               post("Content-Length: 5, 5\r\n"),
		"RT-02 plus":               post("Content-Length: +5\r\n"),
		"RT-02 hex":                post("Content-Length: 0x5\r\n"),
		"RT-02 negative":           post("Content-Length: -1\r\n"),
		"RT-02 20 digits":          post("Content-Length: 00000000000000000005\r\n"),
		"RT-02 empty":              post("Content-Length:\r\n"),
		"bare LF":                  "GET / HTTP/1.1\nHost: a\n\n",
		"bare LF in headers":       "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
		"bare CR":                  "GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n",
		"two hosts":                "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
		"no host":                  "GET / HTTP/1.1\r\n\r\n",
		"other host in target":     "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
		"folded header":            "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n",
		"blank before colon":       "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
		"NUL in value":             "GET / HTTP/1.1\r\nHost: a\r\nX: y\x00z\r\n\r\n",
		"no UTF-8 in value":        "GET / HTTP/1.1\r\nHost: a\r\nX: \xff\r\n\r\n",
		"three words after method": "GET / x HTTP/1.1\r\nHost: a\r\n\r\n",
		"fragment L7-04":           "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
		"method with tab L7-12":    "GET\t / HTTP/1.1\r\nHost: a\r\n\r\n",
		"host with path":           "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
		"userinfo in host":         "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
		"HTTP/1.0 chunked":         "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	}
	// RT-01: ways to hide a transfer encoding from one of two readers.
	for i, te := range []string{
		"Transfer-Encoding: xchunked", "Transfer-Encoding : chunked", "Transfer-Encoding: chunked, identity", "Transfer-Encoding: identity, chunked",
		"Transfer-Encoding: identity", "Transfer-Encoding:\x0bchunked", "Transfer-Encoding: \x00chunked", "Transfer-Encoding: chunked\x0c",
		"Transfer-Encoding: chunked\r\nTransfer-Encoding: x", "Transfer-Encoding: x\r\nTransfer-Encoding: chunked", "Transfer-Encoding:\r\n chunked",
		"Transfer-Encoding: \"chunked\"", "Transfer-Encoding: 'chunked'", "Transfer-Encoding: chunked;q=1", "Transfer-Encoding: chunk", "X: y\rTransfer-Encoding: chunked",
		"Transfer-Encoding: chunked\n", "Transfer-Encoding\t: chunked", " Transfer-Encoding: chunked", "\tTransfer-Encoding: chunked", "Transfer-Encoding: gzip",
		"Transfer-Encoding: gzip, chunked", "Transfer-Encoding: chunked, chunked", "Transfer-Encoding: , chunked", "Transfer-Encoding: chunked,", "Transfer-Encoding: \xa0chunked",
		"Transfer-Encoding: chunked\xa0", "Transfer-Encoding:", "Transfer\x00-Encoding: chunked", "Trans\xc0fer-Encoding: chunked", "Transfer-Encoding: c\thunked",
		"Transfer-Encoding: 0", "Transfer-Encoding: none", "Transfer-Encoding=chunked", "Transfer-Encoding", ": chunked", "Transfer-Encoding: deflate", "Transfer-Encoding: trailers",
		"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked x",
	} {
		cases[fmt.Sprintf("RT-01 TE.TE %d %q", i, te)] = post(te + "\r\nContent-Length: 5\r\n")
		if !strings.Contains(te, "\n") {
			cases[fmt.Sprintf("RT-01 TE alone %d %q", i, te)] = post(te + "\r\n")
		}
	}
	for name, message := range cases {
		t.Run(name, func(t *testing.T) {
			got := raw(t, gw, message)
			if !strings.HasPrefix(got, "HTTP/1.1 400 ") || strings.Count(got, "HTTP/1.1 ") != 1 {
				t.Errorf("answer %q, want one 400", got)
			}
		})
	}
	if n := received(); n != 0 {
		t.Errorf("backend received %d bytes", n)
	}
}

func TestMethodsAndSizesThatAreNotServed(t *testing.T) {
	at, received := web(t, echo)
	b := start(t, nil)
	b.apply(backend("web", at), route("*", to("web")), listener(8080, "*"))
	for name, c := range map[string]struct{ message, want string }{
		"RT-07 CONNECT":           {"CONNECT 10.0.0.1:80 HTTP/1.1\r\nHost: 10.0.0.1:80\r\n\r\n", "405"},
		"RT-07 CONNECT with body": {"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nContent-Length: 3\r\n\r\nabc", "405"},
		"RT-19 65 KiB":            {"GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 65<<10) + "\r\n\r\n", "431"},
		"RT-19 1,000 headers":     {"GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: y\r\n", 1000) + "\r\n", "431"},
		"HTTP/2.0 in a line":      {"GET / HTTP/2.0\r\nHost: a\r\n\r\n", "505"},
		"no HTTP at all":          {"\x16\x03\x01\x00\x05hello\r\n\r\n", "400"},
	} {
		if got := raw(t, b.at(8080), c.message); !strings.HasPrefix(got, "HTTP/1.1 "+c.want+" ") {
			t.Errorf("%s: answer %.80q, want %s", name, got, c.want)
		}
	}
	if n := received(); n != 0 {
		t.Errorf("backend received %d bytes", n)
	}
	ok := "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: " + strings.Repeat("x", 63<<10) + "\r\n\r\n"
	if got := raw(t, b.at(8080), ok); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
		t.Errorf("63 KiB of headers: answer %.80q, want 200", got)
	}
}

// RT-21: what follows a malformed request is never looked at.
func TestPipelineEndsAtTheFirstFault(t *testing.T) {
	at, _ := web(t, echo)
	b := start(t, nil)
	b.apply(backend("web", at), route("*", to("web")), listener(8080, "*"))
	got := raw(t, b.at(8080), "GET /first HTTP/1.1\r\n"+host+"\r\nGET /second HTTP/1.1\r\nBad Header: x\r\n\r\nGET /third HTTP/1.1\r\n"+host+"\r\n")
	if strings.Count(got, "HTTP/1.1 200 ") != 1 || strings.Count(got, "HTTP/1.1 400 ") != 1 || strings.Contains(got, "/third") || !strings.Contains(got, "GET /first") {
		t.Errorf("answers %q", got)
	}
	all := raw(t, b.at(8080), strings.Repeat("POST /n HTTP/1.1\r\n"+host+"Content-Length: 3\r\n\r\nabc", 3)+"GET /end HTTP/1.1\r\n"+host+"Connection: close\r\n\r\n")
	if strings.Count(all, "HTTP/1.1 200 ") != 4 || strings.Count(all, "abc") != 3 {
		t.Errorf("four pipelined requests: answers %q", all)
	}
}

func TestChunkedBodiesAreReadStrictly(t *testing.T) {
	at, _ := web(t, echo)
	b := start(t, nil)
	b.apply(backend("web", at), route("*", to("web")), listener(8080, "*"))
	post := func(chunks string) string {
		return "POST / HTTP/1.1\r\n" + host + "Connection: close\r\nTransfer-Encoding: Chunked\r\n\r\n" + chunks
	}
	for name, c := range map[string]struct{ chunks, want string }{
		"two chunks and a trailer": {"3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\nX-T: 1\r\n\r\n", "200"},
		"upper case hex":           {"A\r\n0123456789\r\n0\r\n\r\n", "200"},
		"bare LF after size":       {"3\nabc\r\n0\r\n\r\n", "400"},
		"size with 0x":             {"0x3\r\nabc\r\n0\r\n\r\n", "400"},
		"negative size":            {"-3\r\nabc\r\n0\r\n\r\n", "400"},
		"data longer than size":    {"2\r\nabc\r\n0\r\n\r\n", "400"},
		"size overflows":           {"fffffffffffffffff\r\nabc\r\n0\r\n\r\n", "400"},
		"blank before size":        {" 3\r\nabc\r\n0\r\n\r\n", "400"},
		"bare CR in extension":     {"3;a\rb\r\nabc\r\n0\r\n\r\n", "400"},
		"bad trailer":              {"3\r\nabc\r\n0\r\nX T: 1\r\n\r\n", "400"},
	} {
		if got := raw(t, b.at(8080), post(c.chunks)); !strings.HasPrefix(got, "HTTP/1.1 "+c.want+" ") {
			t.Errorf("%s: answer %q, want %s", name, got, c.want)
		}
	}
}

// A client that ends its body early must not be taken for one that has said everything.
func TestCutBodyIsNotComplete(t *testing.T) {
	complete := make(chan bool, 1)
	at, _ := web(t, func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.ReadAll(r.Body)
		complete <- err == nil
	})
	b := start(t, nil)
	b.apply(backend("web", at), route("*", to("web")), listener(8080, "*"))
	c, err := net.Dial("tcp", b.at(8080))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "POST / HTTP/1.1\r\n%sContent-Length: 10\r\n\r\nabc", host)
	c.Close()
	select {
	case ok := <-complete:
		if ok {
			t.Error("the backend saw a complete body")
		}
	case <-time.After(10 * time.Second):
		t.Error("the backend waits for a body that will never come")
	}
}
