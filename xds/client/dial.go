package client

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
)

func (c *Client) dial() (*grpc.ClientConn, error) {
	conf, err := c.conf.TLS()
	if err != nil {
		return nil, fmt.Errorf("tls for %s: %w", c.conf.Address, err)
	}
	return grpc.NewClient(c.conf.Address, append(DialOptions(conf), c.conf.DialOptions...)...)
}

// connectTimeout is how long a connection may take to come up. When the control plane restarts, its address still leads
// to the pod that is gone for a moment, where nobody refuses; gRPC's own 20 s would be 20 s of old configuration.
const connectTimeout = 4 * time.Second

// DialOptions are how a proxy talks to the control plane: over TLS, small buffers, dead connections found in 40 s.
func DialOptions(conf *tls.Config) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(credentials.NewTLS(conf)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithReadBufferSize(4 << 10), grpc.WithWriteBufferSize(4 << 10), grpc.WithSharedWriteBuffer(true),
		grpc.WithDisableServiceConfig(), grpc.WithNoProxy(),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: connectTimeout}),
	}
}

// introduce adds our credentials to a call.
func (c *Client) introduce(ctx context.Context) (context.Context, error) {
	return Credentials(ctx, c.conf.Token, c.conf.ClusterID)
}

// Credentials adds the bearer token and the cluster to a call's metadata.
func Credentials(ctx context.Context, token func() (string, error), clusterID string) (context.Context, error) {
	if token != nil {
		t, err := token()
		if err != nil {
			return nil, fmt.Errorf("token: %w", err)
		}
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+t)
	}
	if clusterID != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "clusterid", clusterID)
	}
	return ctx, nil
}
