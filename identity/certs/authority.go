// Package certs keeps SVIDs fresh: it asks a certificate authority for them, renews them early and forgets them.
package certs

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/url"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/ambit-mesh/ambit/api/ca"
	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/identity/svid"
)

// Issued is what an authority answers: the SVID, and the roots of its mesh, one of which vouches for it.
type Issued struct {
	SVID  *svid.SVID
	Roots []*x509.Certificate
}

// Authority issues SVIDs.
type Authority interface {
	Issue(ctx context.Context, id identity.ID) (Issued, error)
}

// CA is the client of istio.v1.auth.IstioCertificateService.
type CA struct {
	// Address of the service, host:port.
	Address string
	// TLS makes the configuration for each request, so that roots are read again.
	TLS func() (*tls.Config, error)
	// Token gives the bearer token for each request.
	Token func() (string, error)
	// ClusterID is sent as metadata clusterid.
	ClusterID string
	// Impersonate asks for identities that are not the caller's own: what a node proxy does for its pods.
	Impersonate bool
	// TTL asked for. Default 24h.
	TTL time.Duration
	// DialOptions are added to our own, for tests.
	DialOptions []grpc.DialOption
}

// Issue makes a new key, asks for a certificate and checks that it is the one asked for.
func (c *CA) Issue(ctx context.Context, id identity.ID) (Issued, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Issued{}, fmt.Errorf("new key: %w", err)
	}
	uri, err := url.Parse(id.String())
	if err != nil {
		return Issued{}, fmt.Errorf("identity %s: %w", id, err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{URIs: []*url.URL{uri}}, key)
	if err != nil {
		return Issued{}, fmt.Errorf("certificate request: %w", err)
	}
	ttl := c.TTL
	if ttl == 0 {
		ttl = 24 * time.Hour
	}
	req := &ca.IstioCertificateRequest{
		Csr:              string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})),
		ValidityDuration: int64(ttl / time.Second),
	}
	if c.Impersonate {
		req.Metadata = &structpb.Struct{Fields: map[string]*structpb.Value{"ImpersonatedIdentity": structpb.NewStringValue(id.String())}}
	}
	chain, err := c.call(ctx, req)
	if err != nil {
		return Issued{}, err
	}
	return check(chain, id, key)
}

// connectTimeout is how long a connection to the authority may take to come up.
const connectTimeout = 4 * time.Second

func (c *CA) call(ctx context.Context, req *ca.IstioCertificateRequest) ([]string, error) {
	conf, err := c.TLS()
	if err != nil {
		return nil, fmt.Errorf("tls for %s: %w", c.Address, err)
	}
	token, err := c.Token()
	if err != nil {
		return nil, fmt.Errorf("token: %w", err)
	}
	conn, err := grpc.NewClient(c.Address, append([]grpc.DialOption{
		grpc.WithTransportCredentials(credentials.NewTLS(conf)), grpc.WithDisableServiceConfig(), grpc.WithNoProxy(),
		grpc.WithReadBufferSize(4 << 10), grpc.WithWriteBufferSize(4 << 10),
		// While it restarts, its address may lead to nobody, who refuses nothing.
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: connectTimeout}),
	}, c.DialOptions...)...)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token, "clusterid", c.ClusterID)
	resp := &ca.IstioCertificateResponse{}
	if err := conn.Invoke(ctx, "/istio.v1.auth.IstioCertificateService/CreateCertificate", req, resp); err != nil {
		return nil, fmt.Errorf("certificate authority %s: %w", c.Address, err)
	}
	return resp.GetCertChain(), nil
}
