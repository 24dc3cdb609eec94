package cniplugin

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func FuzzAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\n\r\n"), false)
	f.Add([]byte("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\n\r\nno"), false)
	f.Add([]byte("HTTP/1.1 500 x\r\ncontent-length: -1\r\n\r\n"), true)
	f.Add([]byte("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx"), true)
	f.Fuzz(func(t *testing.T, b []byte, ended bool) {
		status, body, ok := parseAnswer(b, ended)
		if ok && (status < 100 || status > 999 || len(body) > len(b)) || !ok && (status != 0 || body != nil) {
			t.Errorf("parseAnswer(%q, %v) = %d, %q, %v", b, ended, status, body, ok)
		}
		if ok && !strings.HasPrefix(string(b), "HTTP/1.") {
			t.Errorf("%q passes for an answer", b)
		}
		if !utf8.ValidString(reason(body)) {
			t.Errorf("reason of %q", body)
		}
	})
}

func FuzzAccess(f *testing.F) {
	f.Add([]byte(`{"clusters":[{"cluster":{"server":"https://10.96.0.1","certificate-authority-data":"eA=="}}],"users":[{"user":{"token":"t"}}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseAccess(b)
		if err == nil && (strings.ContainsAny(s.token+s.host, "\r\n ") || s.tls.InsecureSkipVerify || s.tls.ServerName == "") {
			t.Errorf("parseAccess(%q) = %+v", b, s)
		}
	})
}

func FuzzConf(f *testing.F) {
	f.Add([]byte(`{"cniVersion":"1.0.0","name":"n","type":"istio-cni","cni_agent_run_dir":"/x","prevResult":{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.1/24"}]}}`), "K8S_POD_NAME=a;K8S_POD_NAMESPACE=b;K8S_POD_UID=c")
	f.Add([]byte(`{"cniVersion":"0.4.0","prevResult":{"ips":[{"version":"4","address":"10.0.0.1/24","gateway":"x"}]}}`), ";;=;K8S_POD_NAME")
	f.Fuzz(func(t *testing.T, stdin []byte, args string) {
		p := parseArgs(args)
		if strings.ContainsAny(p.name+p.namespace+p.uid, ";") {
			t.Errorf("parseArgs(%q) = %+v", args, p)
		}
		c, prev, err := parseConf(stdin)
		if err != nil {
			return
		}
		if !strings.HasPrefix(c.RunDir, "/") {
			t.Errorf("relative folder %q", c.RunDir)
		}
		if prev != nil {
			event("/x", p, prev)
		}
	})
}

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		answer string
		ended  bool
		status int
		text   string
		ok     bool
	}{
		{answer: "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", status: 200, ok: true},
		{answer: "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", ended: true},
		{answer: "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nokay", status: 200, text: "ok", ok: true},
		{answer: "HTTP/1.0 200 OK\r\n\r\nok", ended: true, status: 200, text: "ok", ok: true},
		{answer: "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ended: true},
		{answer: "HTTP/1.1 500 E\r\nContent-Length: 4\r\n\r\nno"},
		{answer: "HTTP/1.1 500 E\r\nContent-Length: 4\r\n\r\nnone", status: 500, text: "none", ok: true},
		{answer: "HTTP/1.1 500 E\r\nContent-Length: 4\r\n\r\nno", ended: true},
		{answer: "HTTP/1.1 500 E\r\n\r\nno"},
		{answer: "HTTP/1.1 500 E\r\n\r\nn\xff", ended: true, status: 500, text: "n?", ok: true},
		{answer: "HTTP/2 200 OK\r\n\r\n", ended: true},
		{answer: "HTTP/1.1 2e2 OK\r\n\r\n", ended: true},
		{answer: "HTTP/1.1 20\r\n\r\n", ended: true},
		{answer: "SSH-2.0-x\r\n\r\n", ended: true},
	} {
		status, body, ok := parseAnswer([]byte(c.answer), c.ended)
		text := reason(body)
		if status != c.status || text != c.text || ok != c.ok {
			t.Errorf("%q (ended %v) = %d, %q, %v; want %d, %q, %v", c.answer, c.ended, status, text, ok, c.status, c.text, c.ok)
		}
	}
}
