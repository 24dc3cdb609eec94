package client

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"strings"
)

// TLSFromFile makes configurations that trust the roots in a PEM file, read for each connection, for one server name.
func TLSFromFile(rootFile, serverName string) func() (*tls.Config, error) {
	return func() (*tls.Config, error) {
		pem, err := os.ReadFile(rootFile)
		if err != nil {
			return nil, fmt.Errorf("root certificates: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("root certificates: %s holds no certificate", rootFile)
		}
		return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool, ServerName: serverName}, nil
	}
}

// TokenFromFile reads a bearer token for each stream: kubelets renew it in place.
func TokenFromFile(path string) func() (string, error) {
	return func() (string, error) {
		b, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		return strings.TrimSpace(string(b)), nil
	}
}
