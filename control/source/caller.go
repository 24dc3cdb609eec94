package source

import "github.com/ambit-mesh/ambit/identity"

// Caller is who a verified token says is calling. The zero value is nobody.
type Caller struct {
	Namespace      string
	ServiceAccount string
	Pod            string // "" for a token that is bound to no pod
	PodUID         string
	Node           string // "" when the token does not say
}

// ID is the caller's own identity in a trust domain.
func (c Caller) ID(trustDomain string) identity.ID {
	return identity.ID{TrustDomain: trustDomain, Namespace: c.Namespace, ServiceAccount: c.ServiceAccount}
}

// Account is "namespace/name" of the caller's service account.
func (c Caller) Account() string { return c.Namespace + "/" + c.ServiceAccount }
