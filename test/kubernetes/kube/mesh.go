package kube

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// hub is where `make images` says that images are from.
const hub = "localhost/ambit"

// Installed tells whether a mesh is there, and learns of its images.
func (c *Cluster) Installed() bool {
	image, err := c.Try("get", "deployment", "istiod", "-n", "istio-system", "-o", "jsonpath={.spec.template.spec.containers[0].image}")
	if err != nil {
		return false
	}
	c.Hub, c.Tag = image[:max(0, strings.LastIndex(image, "/"))], image[strings.LastIndex(image, ":")+1:]
	return true
}

// Install loads the images and installs the mesh with `ambit install`, and gives what that said.
func (c *Cluster) Install(t *testing.T, profile string, more ...string) string {
	t.Helper()
	start := time.Now()
	if !c.Installed() {
		c.Load(t, c.images())
		c.Hub, c.Tag = hub, strings.TrimSpace(c.Ambit(t, "version", "--remote=false", "--short"))
		c.times.add("load images", "", time.Since(start))
	}
	return c.Ambit(t, append([]string{"install", "--skip-confirmation", "--set", "profile=" + profile}, more...)...)
}

// Mesh sees to it that a mesh is there: scenarios can be run without the one that installs.
func (c *Cluster) Mesh(t *testing.T) {
	t.Helper()
	if c.Installed() {
		return
	}
	start := time.Now()
	t.Log(c.Install(t, "ambient-2023"))
	c.times.add("install", "", time.Since(start))
}

// Captured tells, with nil, that every pod of a namespace that runs is in the mesh.
func (c *Cluster) Captured(namespace string) error {
	out, err := c.Try("get", "pods", "-n", namespace, "--field-selector=status.phase=Running", "-o",
		`jsonpath={range .items[*]}{.metadata.name}={.metadata.annotations.ambient\.istio\.io/redirection}{"\n"}{end}`)
	if err != nil {
		return err
	}
	pods := 0
	for line := range strings.Lines(out) {
		pods++
		if name, state, _ := strings.Cut(strings.TrimSpace(line), "="); state != "enabled" {
			return fmt.Errorf("pod %s is not captured", name)
		}
	}
	if pods == 0 {
		return fmt.Errorf("no pod runs in %s", namespace)
	}
	return nil
}

// Image is the name of one of the mesh's own images, such as ambit-sample.
func (c *Cluster) Image(name string) string { return fmt.Sprintf("%s/%s:%s", c.Hub, name, c.Tag) }
