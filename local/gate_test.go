package local

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/ambit-mesh/ambit/local/client"
)

// kubeconfig is what kubectl reads of the file.
type kubeconfig struct {
	Clusters []struct {
		Cluster struct {
			Server string `json:"server"`
			CA     string `json:"certificate-authority-data"`
		} `json:"cluster"`
	} `json:"clusters"`
	Users []struct {
		User struct {
			Token string `json:"token"`
		} `json:"user"`
	} `json:"users"`
}

func TestUI09GateProvesItselfAndAsksForTheToken(t *testing.T) {
	dir := t.TempDir()
	var asked atomic.Int32
	socket, err := net.Listen("unix", filepath.Join(dir, client.APISocket))
	if err != nil {
		t.Fatal(err)
	}
	api := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		fmt.Fprintf(w, "%s %s %q", r.Method, r.URL, r.Header.Get("Authorization"))
	})}
	go func() { _ = api.Serve(socket) }()
	defer api.Close()
	ctx, cancel := context.WithCancel(t.Context())
	file := filepath.Join(dir, "kubeconfig")
	if err := os.WriteFile(file, nil, 0o644); err != nil { // readable by all: its rights must not be kept
		t.Fatal(err)
	}
	at, done := make(chan string, 1), make(chan error, 1)
	go func() { done <- Gate{State: dir, Kubeconfig: file}.Serve(ctx, func(a string) { at <- a }) }()
	addr := <-at
	if host, _, err := net.SplitHostPort(addr); err != nil || host != "127.0.0.1" {
		t.Fatalf("the gate is at %s", addr)
	}
	st, err := os.Stat(file)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", st.Mode(), err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var k kubeconfig
	if err := yaml.Unmarshal(text, &k); err != nil {
		t.Fatal(err)
	}
	ca, err := base64.StdEncoding.DecodeString(k.Clusters[0].Cluster.CA)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	ask := func(pool *x509.CertPool, token string) (int, string, error) {
		c := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
		req, err := http.NewRequest("GET", k.Clusters[0].Cluster.Server+"/api/v1/pods?watch=true", nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := c.Do(req)
		if err != nil {
			return 0, "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b), err
	}
	token := k.Users[0].User.Token
	if code, body, err := ask(roots, token); err != nil || code != 200 || body != `GET /api/v1/pods?watch=true ""` {
		t.Errorf("with the token: %d %q %v", code, body, err)
	}
	for _, wrong := range []string{"", token[1:], token + "x", strings.ToLower(token)} {
		if code, _, err := ask(roots, wrong); err != nil || code != 401 {
			t.Errorf("with %q: %d %v, want 401", wrong, code, err)
		}
	}
	if _, _, err := ask(x509.NewCertPool(), token); err == nil {
		t.Error("a client that does not know the root trusts the gate")
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("the cluster was asked %d times, want 1", n)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("the kubeconfig outlives the gate: %v", err)
	}
}
