package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/ambit-mesh/ambit/control"
	"github.com/ambit-mesh/ambit/control/source/files"
	"github.com/ambit-mesh/ambit/control/source/kube"
	"github.com/ambit-mesh/ambit/mesh"
)

// files reads from directories.
func (o options) files(c *control.Config) error {
	if o.jwks == "" || o.status == "" {
		return errors.New("with --objects give --status and --jwks too")
	}
	kept := cmp.Or(o.kept, filepath.Join(filepath.Dir(filepath.Clean(o.status)), "kept"))
	src, err := files.Open(files.Config{Dir: o.objects, Kept: kept, Log: c.Log})
	if err != nil {
		return err
	}
	c.Objects, c.Writer, c.Status = src, files.NewWriter(o.objects), files.NewWriter(o.status)
	c.Callers = files.NewCallers(o.jwks, mesh.TokenAudience)
	return nil
}

// kubernetes reads from an API server.
func (o options) kubernetes(c *control.Config) error {
	rc, err := o.api()
	if err != nil {
		return err
	}
	src, err := kube.Open(kube.Config{REST: rc, Log: c.Log})
	if err != nil {
		return err
	}
	c.Objects, c.Status = src, src.Status()
	if c.Writer, err = kube.NewWriter(rc); err != nil {
		return err
	}
	if c.Callers, err = kube.NewCallers(rc, mesh.TokenAudience); err != nil {
		return err
	}
	if o.webhook != "" {
		if err := o.validate(rc, c); err != nil {
			return err
		}
	}
	name := o.pod
	if name == "" {
		if name, err = os.Hostname(); err != nil {
			return fmt.Errorf("find a name to lead under: %w", err)
		}
	}
	if c.Peers, err = kube.NewPeers(kube.PeersConfig{REST: rc, Namespace: o.namespace, Name: name, UID: o.podUID}); err != nil {
		return err
	}
	c.Leader, err = kube.NewLease(kube.LeaseConfig{REST: rc, Namespace: o.namespace, Name: mesh.LeaderLease, Identity: name, Sole: o.pod != "", Log: c.Log})
	return err
}

// validate has the API server ask about objects. The names are those of the chart.
func (o options) validate(rc *rest.Config, c *control.Config) error {
	hook := kube.WebhookConfig{REST: rc, Name: "istio-validator-" + o.namespace, Namespace: o.namespace}
	if o.revision != "" && o.revision != "default" {
		hook.Name, hook.Revision = "istio-validator-"+o.revision+"-"+o.namespace, o.revision
		c.Service = mesh.IstiodService + "-" + o.revision
	}
	w, err := kube.NewWebhook(hook)
	if err != nil {
		return err
	}
	c.Webhook = w
	return nil
}

// api is how to reach the API server.
func (o options) api() (*rest.Config, error) {
	if o.kubeconfig != "" {
		rc, err := clientcmd.BuildConfigFromFlags("", o.kubeconfig)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", o.kubeconfig, err)
		}
		return rc, nil
	}
	rc, err := rest.InClusterConfig()
	if err != nil {
		return nil, fmt.Errorf("not in a pod of a cluster (%w): give --kubeconfig, or --objects to read from a directory", err)
	}
	return rc, nil
}
