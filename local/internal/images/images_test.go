package images_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/local/internal/images"
)

func TestResolve(t *testing.T) {
	for _, tc := range []struct {
		name string
		c    images.Container
		want images.Program
	}{
		{
			"bookinfo of any tag",
			images.Container{Image: "docker.io/istio/examples-bookinfo-reviews-v3:1.20.3"},
			images.Program{Argv: []string{"/b/ambit-sample", "reviews"}, Env: []string{"SERVICE_VERSION=v3"}},
		},
		{
			"a registry with a port",
			images.Container{Image: "localhost:5000/examples-bookinfo-details-v1"},
			images.Program{Argv: []string{"/b/ambit-sample", "details"}, Env: []string{"SERVICE_VERSION=v1"}},
		},
		{
			"helloworld by its old name",
			images.Container{Image: "docker.io/istio/examples-helloworld-v2"},
			images.Program{Argv: []string{"/b/ambit-sample", "helloworld"}, Env: []string{"SERVICE_VERSION=v2"}},
		},
		{
			"helloworld by tag",
			images.Container{Image: "docker.io/istio/examples-helloworld:v1"},
			images.Program{Argv: []string{"/b/ambit-sample", "helloworld"}, Env: []string{"SERVICE_VERSION=v1"}},
		},
		{
			"sleep",
			images.Container{Image: "curlimages/curl", Command: []string{"/bin/sleep", "infinity"}},
			images.Program{Argv: []string{"/b/ambit-sample", "sleep", "infinity"}},
		},
		{
			"curl with arguments",
			images.Container{Image: "curlimages/curl:8.1", Args: []string{"-s", "http://x"}},
			images.Program{Argv: []string{"/b/ambit-sample", "curl", "-s", "http://x"}},
		},
		{
			"a shell of a sample image is the machine's",
			images.Container{Image: "curlimages/curl", Command: []string{"sh", "-c", "true"}},
			images.Program{Argv: []string{"sh", "-c", "true"}},
		},
		{
			"httpbin",
			images.Container{Image: "docker.io/mccutchen/go-httpbin:v2.15.0@sha256:ab"},
			images.Program{Argv: []string{"/b/ambit-sample", "httpbin"}, Env: []string{"PORT=8080"}},
		},
		{
			"the mesh's own",
			images.Container{Image: "gcr.io/istio-release/ztunnel:1.30.0", Args: []string{"proxy", "ztunnel"}},
			images.Program{Argv: []string{"/b/ztunnel", "proxy", "ztunnel"}},
		},
		{
			"Istio's command",
			images.Container{Image: "istio/proxyv2", Command: []string{"/usr/local/bin/pilot-agent"}, Args: []string{"proxy"}},
			images.Program{Argv: []string{"/b/waypoint", "proxy"}},
		},
		{
			"tcp-echo",
			images.Container{Image: "istio/tcp-echo-server:1.3", Args: []string{"9000,9001", "hello"}},
			images.Program{Argv: []string{"/b/ambit-sample", "tcp-echo", "9000,9001", "hello"}},
		},
		{
			"any image with a command",
			images.Container{Image: "python:3", Command: []string{"python3"}, Args: []string{"-m", "http.server"}},
			images.Program{Argv: []string{"python3", "-m", "http.server"}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := images.Resolve(tc.c, "/b")
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
		})
	}
}

func TestUnknownImageSaysWhatToDo(t *testing.T) {
	_, err := images.Resolve(images.Container{Image: "nginx"}, "/b")
	if !errors.Is(err, images.ErrNotAvailable) || !strings.Contains(err.Error(), "give the container a command") {
		t.Errorf("Resolve(nginx) = %v", err)
	}
}
