package hbone_test

import (
	"crypto/x509"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestStrangersHaveFewPlacesAndLittleTime_ID18(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := inMemory(t, echo)
		defer m.end(t)
		stranger := func() net.Conn {
			c, err := m.dialer.DialTCP(t.Context(), m.hop)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Write([]byte{22}); err != nil { // the first byte of a handshake
				t.Fatal(err)
			}
			return c
		}
		began := time.Now()
		ended := make(chan time.Duration, 100)
		var all []net.Conn
		for range 64 {
			c := stranger()
			all = append(all, c)
			go func() {
				_, _ = c.Read(make([]byte, 1))
				ended <- time.Since(began)
			}()
		}
		synctest.Wait()
		if _, err := stranger().Read(make([]byte, 1)); err == nil || time.Since(began) > 0 {
			t.Errorf("the 65th stranger of an address: %v after %v, want it refused at once", err, time.Since(began))
		}
		time.Sleep(1100 * time.Millisecond)
		m.dial(t, "10.0.0.9:80", nil).Close() // in the place of the oldest, which is overdue
		synctest.Wait()
		if n := len(ended); n != 1 {
			t.Errorf("%d strangers lost their places, want one", n)
		}
		for range all {
			if d := <-ended; d > 10*time.Second {
				t.Errorf("a stranger was kept for %v, want at most 10s", d)
			}
		}
		for _, c := range all {
			c.Close()
		}
	})
}

func TestConnectionsAreRechecked_ID16(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := inMemory(t, echo)
		defer m.end(t)
		s := m.dial(t, "10.0.0.9:80", nil)
		talk := func() error {
			if _, err := io.WriteString(s, "x"); err != nil {
				return err
			}
			_, err := s.Read(make([]byte, 1))
			return err
		}
		m.dialer.Recheck(func(chain []*x509.Certificate) error {
			if len(chain) != 1 || chain[0].URIs[0].String() != id("b").String() {
				t.Errorf("asked for %v, want the peer's certificate", chain)
			}
			return nil
		})
		if err := talk(); err != nil {
			t.Fatalf("a connection that is still good was cut: %v", err)
		}
		revoked := errors.New("revoked")
		m.dialer.Recheck(func([]*x509.Certificate) error { return revoked })
		if err := talk(); !errors.Is(err, revoked) || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the tunnel gives %v, want a reset with its reason", err)
		}
		synctest.Wait()
		if n := m.dialer.Counts(); n.Connections != 0 {
			t.Errorf("%d connections are left", n.Connections)
		}
	})
}
