package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/ambit-mesh/ambit/test/lab/figures"
)

// cni times calls of the mesh's CNI plugin as the node's container runtime makes them, for a pod that exists, namespace
// and name in o.to, which is in no mesh.
func cni(ctx context.Context, o options) (figures.Trips, error) {
	conf, err := pluginConf()
	if err != nil {
		return figures.Trips{}, err
	}
	namespace, name := filepath.Split(o.to)
	spaces, err := filepath.Glob("/var/run/netns/*")
	if err != nil {
		return figures.Trips{}, err
	}
	if len(spaces) == 0 {
		return figures.Trips{}, errors.New("no pod's network namespace on this node")
	}
	var took []time.Duration
	start := time.Now()
	for range o.count {
		c := exec.CommandContext(ctx, "/opt/cni/bin/istio-cni")
		c.Stdin = bytes.NewReader(conf)
		c.Env = append(os.Environ(), "CNI_COMMAND=ADD", "CNI_CONTAINERID=lab", "CNI_NETNS="+spaces[0], "CNI_IFNAME=eth0", "CNI_PATH=/opt/cni/bin",
			"CNI_ARGS=K8S_POD_NAMESPACE="+filepath.Clean(namespace)+";K8S_POD_NAME="+name)
		t := time.Now()
		if out, err := c.CombinedOutput(); err != nil {
			return figures.Trips{}, fmt.Errorf("the plugin: %w\n%s", err, out)
		}
		took = append(took, time.Since(t))
	}
	return trips(took, time.Since(start)), nil
}

// pluginConf is the plugin's entry in the node's configuration, with the result of the plugin before it.
func pluginConf() ([]byte, error) {
	files, err := filepath.Glob("/etc/cni/net.d/*.conflist")
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		var list struct {
			CNIVersion, Name string
			Plugins          []map[string]any
		}
		if err := json.Unmarshal(b, &list); err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		for _, p := range list.Plugins {
			if p["type"] == "istio-cni" {
				p["cniVersion"], p["name"] = list.CNIVersion, list.Name
				p["prevResult"] = map[string]any{
					"cniVersion": list.CNIVersion, "interfaces": []any{map[string]any{"name": "eth0", "sandbox": "/proc/self/ns/net"}},
					"ips": []any{map[string]any{"address": "10.255.0.9/24", "interface": 0}},
				}
				return json.Marshal(p)
			}
		}
	}
	return nil, fmt.Errorf("no configuration of the plugin in %v", files)
}
