package hbone

import (
	"fmt"
	"net/http"
	"syscall"
)

// reason is why a connection ends that was well until then.
type reason string

func (r reason) Error() string { return string(r) }

const (
	errPingLate   reason = "peer did not answer a ping for 20s"
	errNoSettings reason = "peer sent no SETTINGS for 10s"
	errCut        reason = "cut at the end of the time to drain"
	errSilent     reason = "the peer did not say that it heard of the drain"
	errNoAnswer   reason = "hop did not answer for 20s"
	errTooMuch    reason = "peer sent more than 64 KiB before it proved an identity"
)

// ConnectError tells that the hop could not be reached.
type ConnectError struct {
	Hop Hop
	Err error
}

func (e *ConnectError) Error() string { return fmt.Sprintf("connect to %s: %v", e.Hop.Addr, e.Err) }
func (e *ConnectError) Unwrap() error { return e.Err }

// TLSError tells that the hop, or we to the hop, did not prove the right identity, or could not agree on TLS.
type TLSError struct {
	Hop Hop
	Err error
}

func (e *TLSError) Error() string { return fmt.Sprintf("TLS with %s: %v", e.Hop.Addr, e.Err) }
func (e *TLSError) Unwrap() error { return e.Err }

// HandshakeError tells that the hop did not speak HTTP/2 behind TLS.
type HandshakeError struct {
	Hop Hop
	Err error
}

func (e *HandshakeError) Error() string {
	return fmt.Sprintf("HTTP/2 handshake with %s: %v", e.Hop.Addr, e.Err)
}
func (e *HandshakeError) Unwrap() error { return e.Err }

// StatusError is the hop's answer to a tunnel that it refused.
type StatusError struct {
	Code   int
	Header http.Header
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("http status: %d %s", e.Code, http.StatusText(e.Code))
}

// ResetError tells that a stream ended before its time. It is a syscall.ECONNRESET to errors.Is.
type ResetError struct {
	Code string // HTTP/2's name for the reason
	Peer bool   // the peer did it
	Why  string
}

func (e *ResetError) Error() string {
	who := "stream reset"
	if e.Peer {
		who = "stream reset by peer"
	}
	if e.Why == "" {
		return who + ": " + e.Code
	}
	return who + ": " + e.Code + ": " + e.Why
}

func (e *ResetError) Unwrap() error { return syscall.ECONNRESET }

// lostError tells that the connection under a stream is gone.
type lostError struct{ err error }

func (e *lostError) Error() string   { return "tunnel's connection lost: " + e.err.Error() }
func (e *lostError) Unwrap() []error { return []error{e.err, syscall.ECONNRESET} }
