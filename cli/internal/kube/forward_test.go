package kube

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/httpstream"
	httpspdy "k8s.io/apimachinery/pkg/util/httpstream/spdy"
	names "k8s.io/apimachinery/pkg/util/portforward"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"

	"github.com/ambit-mesh/ambit/local/client"
)

// podServer is an API server that forwards to pods, which behave as their names say.
func podServer(t *testing.T) *Client {
	t.Helper()
	over := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/api/v1/namespaces/ns/pods/{pod}/portforward", func(w http.ResponseWriter, r *http.Request) {
		pod := r.PathValue("pod")
		streams := make(chan httpstream.Stream, 2)
		take := func(s httpstream.Stream, replied <-chan struct{}) error { streams <- s; return nil }
		var conn httpstream.Connection
		switch {
		case pod == "forbidden":
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"pods \"forbidden\" is forbidden","reason":"Forbidden","code":403}`)
			return
		case pod == "node-away":
			<-over
			return
		case websocket.IsWebSocketUpgrade(r) && pod == "old-server":
			http.Error(w, "no such protocol", http.StatusBadRequest)
			return
		case websocket.IsWebSocketUpgrade(r):
			up := websocket.Upgrader{Subprotocols: []string{names.WebsocketsSPDYTunnelingPrefix + names.PortForwardV1Name}}
			ws, err := up.Upgrade(w, r, nil)
			if err != nil {
				t.Error(err)
				return
			}
			if conn, err = httpspdy.NewServerConnection(portforward.NewTunnelingConnection("server", ws), take); err != nil {
				t.Error(err)
				return
			}
		default:
			if _, err := httpstream.Handshake(r, w, []string{names.PortForwardV1Name}); err != nil {
				t.Error(err)
				return
			}
			conn = httpspdy.NewResponseUpgrader().UpgradeResponse(w, r, take)
		}
		defer conn.Close()
		serve(pod, streams, over)
		select {
		case <-conn.CloseChan():
		case <-over:
		}
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(func() {
		close(over)
		srv.Close()
	})
	c, err := New(&Config{REST: &rest.Config{Host: srv.URL}, Context: "test", From: "a test"}, "ambit/test")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// serve is the far end of one connection: the pod's node and the pod.
func serve(pod string, streams <-chan httpstream.Stream, over <-chan struct{}) {
	var errs, data httpstream.Stream
	for errs == nil || data == nil {
		select {
		case s := <-streams:
			if s.Headers().Get(corev1.StreamType) == corev1.StreamTypeError {
				errs = s
			} else {
				data = s
			}
		case <-over:
			return
		}
	}
	heard := ""
	say := func(head, body string) {
		_, _ = io.WriteString(data, head+"\r\nConnection: close\r\n\r\n"+body)
	}
	if pod != "refused" { // an answer before its question is none
		buf := make([]byte, 4096)
		n, _ := data.Read(buf)
		heard, _, _ = strings.Cut(string(buf[:n]), "\r\n")
	}
	switch pod {
	case "refused":
		_, _ = io.WriteString(errs, "error forwarding port 15000 to pod 4b1d, uid : failed to connect to localhost:15000 inside namespace: connect: connection refused")
	case "hung":
		return
	case "gone":
	case "missing-page":
		say("HTTP/1.1 404 Not Found", "404 page not found")
	case "half":
		say("HTTP/1.1 200 OK\r\nContent-Length: 100", "half")
	default:
		say("HTTP/1.1 200 OK", pod+" to "+data.Headers().Get(corev1.PortHeader)+" heard "+heard)
	}
	_, _ = data.Close(), errs.Close()
}

func TestPodsAnswerThroughTheAPIServer(t *testing.T) {
	c := podServer(t)
	for _, pod := range []string{"web", "old-server"} {
		t.Run(pod, func(t *testing.T) {
			b, err := c.Pod(t.Context(), http.MethodPost, "ns", pod, 15000, "/logging?level=info")
			if want := pod + " to 15000 heard POST /logging?level=info HTTP/1.1"; err != nil || string(b) != want {
				t.Errorf("%q, %v; want %q", b, err, want)
			}
		})
	}
}

func TestPodsThatDoNotAnswerSayWhy(t *testing.T) {
	c := podServer(t)
	c.Within = 300 * time.Millisecond
	for pod, want := range map[string]string{
		"refused":      "port 15000 of pod refused: nothing listens there",
		"hung":         "no answer within 300ms",
		"node-away":    "no answer within 300ms",
		"gone":         "port 15000 of pod gone: ",
		"half":         "unexpected EOF",
		"missing-page": "404 page not found",
		"forbidden":    `is forbidden; docs/commands.md has the rights`,
	} {
		t.Run(pod, func(t *testing.T) {
			c := *c
			if pod != "hung" && pod != "node-away" {
				c.Within = time.Minute
			}
			start := time.Now()
			b, err := c.Pod(t.Context(), http.MethodGet, "ns", pod, 15000, "/")
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q, %v; want %q", b, err, want)
			}
			var refused *client.StatusError
			if answered := pod == "forbidden" || pod == "missing-page"; errors.As(err, &refused) != answered {
				t.Errorf("that it answered is told as %v: %v", !answered, err)
			}
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

func TestInterruptsEndAQuestionAtOnce(t *testing.T) {
	c := podServer(t)
	for _, pod := range []string{"hung", "node-away"} {
		t.Run(pod, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(50*time.Millisecond, cancel)
			if _, err := c.Pod(ctx, http.MethodGet, "ns", pod, 15000, "/"); !errors.Is(err, context.Canceled) {
				t.Errorf("%v", err)
			}
		})
	}
}
