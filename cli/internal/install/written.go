package install

import (
	"context"
	"errors"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/mesh"
)

func configMapKind() kind { return kind{"", "v1", "ConfigMap", "configmaps", false} }
func secretKind() kind    { return kind{"", "v1", "Secret", "secrets", false} }
func leaseKind() kind     { return kind{"coordination.k8s.io", "v1", "Lease", "leases", false} }

// authority are the Secrets that the control plane keeps its certificate authority in. What operators plug in, cacerts, is theirs.
func authority() []string { return []string{mesh.CASecret, mesh.CARotationSecret} }

// written is what the control plane has written by itself: root certificates in every namespace, and which replica leads; with purge
// its authority. Kept are authorities that somebody else has written too.
func (i *Installer) written(ctx context.Context, purge bool) (ours, kept []Object, err error) {
	find := func(k kind, name string) []Object {
		l, lerr := i.Cluster.any.Resource(k.resource()).List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
		if lerr != nil {
			err = errors.Join(err, forbidden(fmt.Errorf("list %s named %s: %w", k.plural, name, lerr)))
			return nil
		}
		return l.Items
	}
	for _, o := range find(configMapKind(), mesh.RootConfigMap) {
		if onlyOurs(&o, "data") {
			ours = append(ours, o)
		}
	}
	ours = append(ours, find(leaseKind(), mesh.LeaderLease)...)
	if purge {
		for _, name := range authority() {
			for _, o := range find(secretKind(), name) {
				if onlyOurs(&o, "data") {
					ours = append(ours, o)
				} else {
					kept = append(kept, o)
				}
			}
		}
	}
	return ours, kept, err
}

func writtenKind(o *Object) kind {
	switch o.GetKind() {
	case "ConfigMap":
		return configMapKind()
	case "Secret":
		return secretKind()
	}
	return leaseKind()
}
