package certs

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ambit-mesh/ambit/internal/testkit/fakeca"
)

func TestRevocationListsAreFollowed(t *testing.T) { // ID-16
	path := filepath.Join(t.TempDir(), "crl.pem")
	synctest.Test(t, func(t *testing.T) {
		ca := fakeca.New(t)
		leaf := ca.Issue(sleep).Chain[0]
		write := func(text []byte) { // as a ConfigMap's volume does: all at once
			if err := os.WriteFile(path+".new", text, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(path+".new", path); err != nil {
				t.Fatal(err)
			}
		}
		list := func(serials ...int64) []byte {
			l := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)}
			for _, n := range serials {
				l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(n), RevocationTime: time.Now()})
			}
			der, err := x509.CreateRevocationList(rand.Reader, l, ca.Root(), ca.Key())
			if err != nil {
				t.Fatal(err)
			}
			return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
		}
		var told atomic.Int64
		var verdict atomic.Bool
		m := New(Config{Authority: newAuthority(t), TrustDomain: "cluster.local", CRLFile: path, Recheck: func(judge func([]*x509.Certificate) error) {
			told.Add(1)
			verdict.Store(judge([]*x509.Certificate{leaf}) != nil)
		}, Log: slog.New(slog.DiscardHandler)})
		m.AddRoots("cluster.local", ca.Root())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- m.Run(ctx) }()
		step := func(what string, revoked bool, times int64) {
			t.Helper()
			began := told.Load()
			time.Sleep(900 * time.Millisecond)
			if err := m.Revoked([]*x509.Certificate{leaf, ca.Root()}); (err != nil) != revoked {
				t.Errorf("%s: %v, want revoked: %v", what, err, revoked)
			}
			if n := told.Load() - began; n != min(times, 1) {
				t.Errorf("%s: connections were judged %d times within a second, want %d", what, n, min(times, 1))
			}
			time.Sleep(time.Minute)
			if n := told.Load() - began; n != times || n > 0 && verdict.Load() != revoked {
				t.Errorf("%s: connections were judged %d times, revoked: %v, want %d and %v", what, n, verdict.Load(), times, revoked)
			}
		}
		step("there is no file", false, 0)
		write(list())
		step("an empty list", false, 3)
		write(list(leaf.SerialNumber.Int64()))
		step("it is revoked", true, 3)
		write([]byte("broken"))
		step("the file is broken", true, 0)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		step("the file is gone", true, 0)
		write(list())
		step("it is no longer revoked", false, 3)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestBrokenRevocationListsEndTheStart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "crl.pem")
	if err := os.WriteFile(path, []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := New(Config{Authority: newAuthority(t), CRLFile: path, Log: slog.New(slog.DiscardHandler)})
	if err := m.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "revocation lists not read") {
		t.Errorf("Run = %v, want an error: nobody knows what is revoked", err)
	}
}

func TestAnswersMayHoldSeveralRoots(t *testing.T) { // CA-18
	first, second := fakeca.New(t), fakeca.New(t)
	key := first.Key() // some key: the certificate is for it
	text := leaf(t, first, &key.PublicKey, ordinary)
	for name, pems := range map[string][]string{
		"the signer's root first":  {text, string(first.PEM()) + string(second.PEM())},
		"the signer's root second": {text, string(second.PEM()) + string(first.PEM())},
	} {
		got, err := check(pems, sleep, key)
		if err != nil || len(got.Roots) != 2 || len(got.SVID.Chain) != 1 {
			t.Errorf("%s: %d roots, %v, want two", name, len(got.Roots), err)
		}
	}
	if _, err := check([]string{text, string(second.PEM())}, sleep, key); err == nil {
		t.Error("a root that did not sign was taken")
	}
	got, err := check([]string{text + string(first.PEM())}, sleep, key)
	if err != nil || len(got.Roots) != 1 {
		t.Errorf("all in one text: %v", err)
	}
}
