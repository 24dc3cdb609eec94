package fakeca_test

import (
	"context"
	"crypto/tls"
	"net"
	"testing"

	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/identity/mtls"
	"github.com/ambit-mesh/ambit/identity/svid"
	"github.com/ambit-mesh/ambit/internal/testkit/fakeca"
	"github.com/ambit-mesh/ambit/internal/testkit/memnet"
)

func TestOrdinaryCertificatesPassAndOthersDoNot(t *testing.T) {
	a, b := identity.ID{TrustDomain: "cluster.local", Namespace: "a", ServiceAccount: "a"}, identity.ID{TrustDomain: "cluster.local", Namespace: "b", ServiceAccount: "b"}
	ca := fakeca.New(t)
	cases := []struct {
		name   string
		client *svid.SVID
		ok     bool
	}{
		{"ordinary", ca.Issue(a), true},
		{"expired", ca.Issue(a, fakeca.Expired()), false},
		{"not yet valid", ca.Issue(a, fakeca.NotYetValid()), false},
		{"leaf is an authority", ca.Issue(a, fakeca.Authority()), false},
		{"server usage only", ca.Issue(a, fakeca.Usage(1)), false},
		{"foreign", fakeca.New(t).Issue(a), false},
		{"two names", ca.Issue(a, fakeca.URIs(a.String(), b.String())), false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			src := fakeca.New(t)
			src.Use(a, c.client)
			x, y := memnet.Pipe()
			defer x.Close()
			defer y.Close()
			srv := tls.Server(y, mtls.Server(func(*tls.ClientHelloInfo) (identity.ID, error) { return b, nil }, ca, ca, mtls.InTrustDomain("cluster.local")))
			cli := tls.Client(net.Conn(x), mtls.Client(a, src, ca, mtls.OneOf(b)))
			go cli.HandshakeContext(context.Background())
			id, err := mtls.Handshake(context.Background(), srv)
			if (err == nil) != c.ok || c.ok && id != a {
				t.Errorf("server saw %v, %v; want ok %v", id, err, c.ok)
			}
		})
	}
}
