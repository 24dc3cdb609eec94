package hbone

import (
	"context"
	"crypto/fips140"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"

	"github.com/ambit-mesh/ambit/hbone/internal/record"
	"github.com/ambit-mesh/ambit/identity"
	"github.com/ambit-mesh/ambit/identity/mtls"
)

// shaken is a connection whose handshake is finished.
type shaken struct {
	link
	conn  net.Conn
	peer  identity.ID
	chain []*x509.Certificate // that proved it, leaf first
}

// shake runs the handshake of one end, and takes the records over from crypto/tls where it can.
func shake(ctx context.Context, conn net.Conn, pool *buffers, conf *tls.Config, client bool) (*shaken, error) {
	w := &wire{Conn: conn, pool: pool}
	var secrets record.Secrets
	defer secrets.Forget()
	take := !fips140.Enabled()
	if take {
		conf = conf.Clone()
		conf.KeyLogWriter = &secrets // it logs nothing: this is how crypto/tls hands out its secrets
	}
	end := tls.Server
	if client {
		end = tls.Client
	}
	t := end(w, conf)
	peer, err := mtls.Handshake(ctx, t)
	if err != nil {
		return nil, err
	}
	state := t.ConnectionState()
	if state.NegotiatedProtocol != mtls.ALPN {
		return nil, fmt.Errorf("peer %s negotiated protocol %q, want %q", peer, state.NegotiatedProtocol, mtls.ALPN)
	}
	s := &shaken{conn: conn, peer: peer, chain: state.PeerCertificates}
	if !take || !record.Known(state.CipherSuite) {
		w.proven = true
		s.link = &tlsLink{tls: t, wire: w, pool: pool}
		return s, nil
	}
	defer w.letGo()
	if w.left > 0 || w.got > 0 {
		return nil, fmt.Errorf("peer %s: handshake ended within a record", peer)
	}
	r, out, err := secrets.Take(state, client)
	if err != nil {
		return nil, err
	}
	s.link = newRecords(conn, pool, r, out, w.pending)
	return s, nil
}
