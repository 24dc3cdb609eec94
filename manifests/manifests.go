// Package manifests holds what an installation applies.
package manifests

import (
	"bytes"
	"embed"
	"fmt"
)

//go:embed local/*.yaml
var files embed.FS

// Component is one step of an installation: what to apply, and which workload must then become ready.
type Component struct {
	// Name as progress shows it, such as Istiod.
	Name string
	// Icon follows the name in a finished line.
	Icon string
	// File is where YAML comes from, for errors.
	File string
	YAML []byte
	// Kind and Workload name what to wait for; none for objects that are ready once applied.
	Kind, Workload string
}

// Options are what a user may choose of the local ambient profile.
type Options struct {
	// LogFormat of ztunnel: text, json or walkthrough. Default text.
	LogFormat string
}

// Local is the ambient profile with an ingress gateway, for a cluster on one machine, in order of installation.
func Local(o Options) ([]Component, error) {
	steps := []Component{
		{Name: "Istio core", Icon: "⛵️", File: "local/0-core.yaml"},
		{Name: "Istiod", Icon: "🧠", File: "local/1-istiod.yaml", Kind: "Deployment", Workload: "istiod"},
		{Name: "CNI", Icon: "🪢", File: "local/2-cni.yaml", Kind: "DaemonSet", Workload: "istio-cni-node"},
		{Name: "Ingress gateways", Icon: "🛬", File: "local/3-ingress.yaml", Kind: "Deployment", Workload: "istio-ingressgateway"},
		{Name: "Ztunnel", Icon: "🔒", File: "local/4-ztunnel.yaml", Kind: "DaemonSet", Workload: "ztunnel"},
	}
	for i := range steps {
		b, err := files.ReadFile(steps[i].File)
		if err != nil {
			return nil, fmt.Errorf("embedded manifest: %w", err)
		}
		steps[i].YAML = b
	}
	if o.LogFormat != "" {
		last := &steps[len(steps)-1]
		last.YAML = bytes.Replace(last.YAML, []byte("value: text"), []byte("value: "+o.LogFormat), 1)
	}
	return steps, nil
}
