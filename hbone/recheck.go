package hbone

import "crypto/x509"

// Recheck cuts the connections whose peer's certificates, leaf first, check refuses now. Its error is the reason why
// their tunnels break.
func (d *Dialer) Recheck(check func(chain []*x509.Certificate) error) { recheck(d.conns.all(), check) }

// Recheck is for the server's connections what it is for the Dialer's.
func (s *Server) Recheck(check func(chain []*x509.Certificate) error) { recheck(s.carriers(), check) }

func recheck(all []*carrier, check func([]*x509.Certificate) error) {
	for _, c := range all {
		if err := check(c.chain); err != nil {
			c.cut(err)
		}
	}
}
