package routing

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/api/l7"
	"github.com/ambit-mesh/ambit/collection"
)

// SecretRef is a certificate that a listener or a backend of a proxy names; it is read in the proxy's own namespace,
// but for those of the Gateway API that another namespace grants.
type SecretRef struct{ Proxy, Namespace, Secret string }

// Name is the name of the Secret resource.
func (r SecretRef) Name() string {
	if r.Namespace != part(r.Proxy, 1) {
		return r.Proxy + "/" + r.Namespace + "/" + r.Secret // which that namespace has granted
	}
	return r.Proxy + "/" + r.Secret
}

// secretRefs are the secrets that listeners name, and those that rules name for what stands behind.
func (b *builder) secretRefs(plans collection.Collection[*Plan], backends collection.Collection[Ref]) collection.Collection[SecretRef] {
	kind := collection.Kind[SecretRef]{Key: SecretRef.Name, Equal: func(x, y SecretRef) bool { return x == y }}
	return collection.Join(kind.Equal,
		collection.MapMany(plans, kind, func(_ *collection.Read, p *Plan) []SecretRef { return p.Secrets }),
		collection.MapMany(backends, kind, b.secretsFor))
}

// secretsFor is the secret that the rules of a backend name, if they do.
func (b *builder) secretsFor(r *collection.Read, ref Ref) []SecretRef {
	s := b.service(r, ref)
	if s == nil {
		return nil
	}
	t := b.rulesOf(r, s, ref).policy(ref.Subset, ref.portOf(s))
	if name := credential(t.tls); name != "" {
		return []SecretRef{{Proxy: ref.Proxy, Namespace: ref.proxyNamespace(), Secret: name}}
	}
	return nil
}

// secret reads a certificate from either of the forms that Istio accepts; the CA may be in a secret of its own. One
// that cannot be used is not sent: what needs it stays closed.
func (b *builder) secret(r *collection.Read, ref SecretRef) (*l7.Secret, bool) {
	out, err := b.readSecret(r, ref.Namespace, ref.Secret)
	if err != nil {
		return nil, false
	}
	out.Name, out.Proxy = ref.Name(), ref.Proxy
	return out, true
}

func (b *builder) readSecret(r *collection.Read, namespace, name string) (*l7.Secret, error) {
	s, ok := collection.Get(r, b.Secrets, namespace+"/"+name)
	ca, okCA := collection.Get(r, b.Secrets, namespace+"/"+name+"-cacert")
	if !ok && !okCA {
		return nil, fmt.Errorf("there is no Secret %s in namespace %s, which is the gateway's", name, namespace)
	}
	out := &l7.Secret{}
	if ok {
		out.CertificateChain, out.PrivateKey, out.CaCertificates = one(s, "tls.crt", "cert"), one(s, "tls.key", "key"), one(s, "ca.crt", "cacert")
		out.Revoked = one(s, "ca.crl", "crl")
	}
	if okCA && len(out.CaCertificates) == 0 {
		out.CaCertificates = one(ca, "ca.crt", "cacert")
		if len(out.Revoked) == 0 {
			out.Revoked = one(ca, "ca.crl", "crl")
		}
	}
	switch {
	case len(out.CertificateChain)+len(out.PrivateKey)+len(out.CaCertificates) == 0:
		return nil, fmt.Errorf("secret %s/%s has neither tls.crt and tls.key, nor cert and key, nor a CA in ca.crt or cacert", namespace, name)
	case len(out.CertificateChain)+len(out.PrivateKey) > 0:
		if _, err := tls.X509KeyPair(out.CertificateChain, out.PrivateKey); err != nil {
			return nil, fmt.Errorf("secret %s/%s: %w", namespace, name, err)
		}
	}
	if len(out.CaCertificates) > 0 && !x509.NewCertPool().AppendCertsFromPEM(out.CaCertificates) {
		return nil, fmt.Errorf("secret %s/%s: its CA is no certificate in PEM", namespace, name)
	}
	return out, nil
}

// usable tells why a listener cannot open with a secret.
func (x *planner) usable(name string, clients bool) error {
	s, err := x.readSecret(x.r, x.plan.Proxy.Namespace, name)
	switch {
	case err != nil:
		return err
	case len(s.GetCertificateChain()) == 0:
		return fmt.Errorf("secret %s/%s has no certificate with its key", x.plan.Proxy.Namespace, name)
	case clients && len(s.GetCaCertificates()) == 0:
		return errors.New("client certificates are asked for, but neither the secret has a CA (ca.crt or cacert), nor is there one named " + name + "-cacert")
	}
	return nil
}

func one(s *corev1.Secret, keys ...string) []byte {
	i := slices.IndexFunc(keys, func(k string) bool { return len(s.Data[k]) > 0 || s.StringData[k] != "" })
	if i < 0 {
		return nil
	}
	if v := s.Data[keys[i]]; len(v) > 0 {
		return v
	}
	return []byte(s.StringData[keys[i]])
}
