package certs

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"os"
	"time"

	"github.com/ambit-mesh/ambit/identity/crl"
	"github.com/ambit-mesh/ambit/identity/mtls"
)

// file is one that others change while we run. While it cannot be read, what was read last stays.
type file struct {
	what, path string
	every      time.Duration
	take       func(text []byte) error

	last []byte
	err  string // of the last attempt, so that it is said once
}

// read takes in the file if it is another than the last time.
func (f *file) read() error {
	text, err := os.ReadFile(f.path)
	if err != nil || f.last != nil && bytes.Equal(text, f.last) {
		return err
	}
	if err := f.take(text); err != nil {
		return err
	}
	f.last = append(make([]byte, 0, len(text)), text...)
	return nil
}

// follow reads a file again and again, until ctx ends.
func (m *Manager) follow(ctx context.Context, f *file) {
	tick := time.NewTicker(f.every)
	defer tick.Stop()
	for {
		err := f.read()
		switch {
		case err == nil:
			f.err = ""
		case err.Error() != f.err:
			f.err = err.Error()
			m.conf.Log.Warn(f.what+" not read, the last ones stay", "file", f.path, "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// rootFile adds the roots of the file as they are now.
func (m *Manager) rootFile() *file {
	return &file{what: "root certificates", path: m.conf.RootFile, every: m.conf.RootFileEvery, take: func(text []byte) error {
		roots, err := parsePEM(text)
		if err == nil && len(roots) == 0 {
			err = errors.New("no certificate in it")
		}
		if err != nil {
			return err
		}
		m.AddRoots(m.conf.TrustDomain, roots...)
		m.conf.Log.Info("root certificates read", "file", m.conf.RootFile, "count", len(roots))
		return nil
	}}
}

// crlFile puts the revocation lists of the file in force.
func (m *Manager) crlFile() *file {
	return &file{what: "revocation lists", path: m.conf.CRLFile, every: m.conf.CRLFileEvery, take: func(text []byte) error {
		list, err := crl.Parse(text)
		if err != nil {
			return err
		}
		m.revoked.Store(list)
		m.conf.Log.Info("revocation lists read", "file", m.conf.CRLFile, "count", list.Len(), "revoked", list.Revoked())
		if next := list.Next(); !next.IsZero() && time.Now().After(next) {
			m.conf.Log.Warn("a revocation list should have been replaced; what it revokes stays revoked", "file", m.conf.CRLFile, "since", next)
		}
		select {
		case m.revised <- struct{}{}:
		default: // it is on its way
		}
		return nil
	}}
}

// recheck has open connections judged when what is revoked has changed, until ctx ends. A handshake that was judged by
// the former lists may end after the first look, so there are more.
func (m *Manager) recheck(ctx context.Context) {
	waits := [...]time.Duration{0, time.Second, 9 * time.Second}
	next := len(waits)
	t := time.NewTimer(0)
	defer t.Stop()
	<-t.C
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.revised:
			next = 0
		case <-t.C:
			m.conf.Recheck(func(chain []*x509.Certificate) error { return mtls.Recheck(chain, m) })
			next++
		}
		if next < len(waits) {
			t.Reset(waits[next])
		}
	}
}

// Revoked implements svid.Revocations.
func (m *Manager) Revoked(chain []*x509.Certificate) error {
	if list := m.revoked.Load(); list != nil {
		return list.Check(chain)
	}
	return nil
}
