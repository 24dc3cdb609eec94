package listen

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ambit-mesh/ambit/api/l7"
)

// admit decides whether a verified client may come in. Where certificates are optional, one without is let in.
func admit(t *l7.TLS, gone map[string]map[string]bool, chains [][]*x509.Certificate) error {
	if len(chains) == 0 {
		if t.GetMode() == l7.TLS_OPTIONAL_MUTUAL {
			return nil
		}
		return errors.New("the client showed no certificate")
	}
	for _, c := range chains[0] {
		if gone[string(c.RawIssuer)][c.SerialNumber.String()] {
			return fmt.Errorf("the client's certificate %s was revoked", c.SerialNumber)
		}
	}
	leaf := chains[0][0]
	if want := t.GetSubjectAltNames(); len(want) > 0 && !slices.ContainsFunc(names(leaf), func(n string) bool { return slices.Contains(want, n) }) {
		return errors.New("the client's certificate has none of the names that the gateway admits")
	}
	if len(t.GetSpki())+len(t.GetHashes()) == 0 {
		return nil
	}
	key, all := sha256.Sum256(leaf.RawSubjectPublicKeyInfo), sha256.Sum256(leaf.Raw)
	if slices.Contains(t.GetSpki(), base64.StdEncoding.EncodeToString(key[:])) {
		return nil
	}
	sum := hex.EncodeToString(all[:])
	if slices.ContainsFunc(t.GetHashes(), func(h string) bool { return strings.EqualFold(strings.ReplaceAll(h, ":", ""), sum) }) {
		return nil
	}
	return errors.New("the client's certificate is not one of those that the gateway names by hash")
}

func names(c *x509.Certificate) []string {
	all := slices.Concat(c.DNSNames, c.EmailAddresses)
	for _, u := range c.URIs {
		all = append(all, u.String())
	}
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	return all
}

// revoked reads lists of revoked certificates. A list that none of the CAs signed is refused: with it, nobody would
// know what it is worth.
func revoked(lists, cas []byte) (map[string]map[string]bool, error) {
	var issuers []*x509.Certificate
	for block, rest := pem.Decode(cas); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("read CA certificate: %w", err)
		}
		issuers = append(issuers, c)
	}
	out := map[string]map[string]bool{}
	for block, rest := pem.Decode(lists); block != nil; block, rest = pem.Decode(rest) {
		list, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("read list of revoked certificates: %w", err)
		}
		if !slices.ContainsFunc(issuers, func(c *x509.Certificate) bool { return list.CheckSignatureFrom(c) == nil }) {
			return nil, errors.New("the list of revoked certificates is not signed by a CA of the secret")
		}
		name := string(list.RawIssuer)
		if out[name] == nil {
			out[name] = map[string]bool{}
		}
		for _, e := range list.RevokedCertificateEntries {
			out[name][e.SerialNumber.String()] = true
		}
	}
	if len(out) == 0 {
		return nil, errors.New("no list of revoked certificates can be read")
	}
	return out, nil
}

// cipherSuites knows suites by the names of OpenSSL, which Istio's users write, and of IANA.
func cipherSuites(wanted []string) ([]uint16, error) {
	var ids []uint16
	for _, w := range wanted {
		id, ok := cipherSuite(w)
		if !ok {
			return nil, fmt.Errorf("cipher suite %q is not known, or not safe", w)
		}
		ids = append(ids, id)
	}
	return ids, nil
}

func cipherSuite(name string) (uint16, bool) {
	for _, s := range tls.CipherSuites() {
		if s.Name == name {
			return s.ID, true
		}
	}
	switch name {
	case "ECDHE-ECDSA-AES128-GCM-SHA256":
		return tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, true
	case "ECDHE-ECDSA-AES256-GCM-SHA384":
		return tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, true
	case "ECDHE-RSA-AES128-GCM-SHA256":
		return tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, true
	case "ECDHE-RSA-AES256-GCM-SHA384":
		return tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, true
	case "ECDHE-ECDSA-CHACHA20-POLY1305":
		return tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, true
	case "ECDHE-RSA-CHACHA20-POLY1305":
		return tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, true
	case "ECDHE-ECDSA-AES128-SHA":
		return tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, true
	case "ECDHE-ECDSA-AES256-SHA":
		return tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA, true
	case "ECDHE-RSA-AES128-SHA":
		return tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, true
	case "ECDHE-RSA-AES256-SHA":
		return tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA, true
	}
	return 0, false
}
