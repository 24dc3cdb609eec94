package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"syscall"

	"github.com/ambit-mesh/ambit/authz"
	"github.com/ambit-mesh/ambit/hbone"
	"github.com/ambit-mesh/ambit/identity/crl"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/telemetry"
)

// failure is an error in the words that users search for, and the response flag that goes with it.
type failure struct {
	flag telemetry.Flag
	text string
	err  error
}

func (f *failure) Error() string {
	if f.err == nil {
		return f.text
	}
	return f.text + ": " + f.err.Error()
}

func (f *failure) Unwrap() error { return f.err }

var (
	errDrained   = &failure{text: "connection closed due to connection drain"}
	errRecursive = &failure{text: "attempted recursive call to ourselves"}
)

func errDenied(v authz.Verdict) error {
	return &failure{flag: telemetry.Denied, text: "connection closed due to policy rejection: " + v.Reason}
}

func errPolicyChange(v authz.Verdict) error {
	return &lateDenial{failure{flag: telemetry.Denied, text: "connection closed due to policy change"}, v}
}

// lateDenial is the end of an open connection that a new policy denies.
type lateDenial struct {
	failure
	verdict authz.Verdict
}

func errConnect(err error) error { return &failure{telemetry.ConnectFailed, "connection failed", err} }

// errRevoked is the end of an open connection whose peer's certificate was revoked.
func errRevoked(err error) error {
	return &failure{telemetry.CertRevoked, "connection closed: peer certificate revoked by CRL", err}
}

// tlsError is a handshake that failed.
func tlsError(err error) error {
	if _, ok := errors.AsType[*crl.RevokedError](err); ok {
		return &failure{telemetry.CertRevoked, "tls error", err}
	}
	return &failure{telemetry.TLSFailed, "tls error", err}
}

// outboundError says what kept a tunnel from opening.
func outboundError(err error) error {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	if e, ok := errors.AsType[*hbone.ConnectError](err); ok {
		if timedOut(e.Err) && e.Hop.Addr.Port() == mesh.PortHBONE {
			return &failure{telemetry.NetworkPolicy, "connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008", err}
		}
		return errConnect(err)
	}
	if _, ok := errors.AsType[*hbone.TLSError](err); ok {
		return tlsError(err)
	}
	if _, ok := errors.AsType[*hbone.HandshakeError](err); ok {
		return &failure{telemetry.HandshakeFailed, "h2 failed", err}
	}
	if e, ok := errors.AsType[*hbone.StatusError](err); ok {
		flag := telemetry.ConnectFailed
		if e.Code == http.StatusUnauthorized || e.Code == http.StatusForbidden {
			flag = telemetry.Denied
		}
		return &failure{flag: flag, text: fmt.Sprintf("http status: %d %s", e.Code, http.StatusText(e.Code))}
	}
	return errConnect(err)
}

func timedOut(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, syscall.ETIMEDOUT)
}

// flagOf is the response flag of an error.
func flagOf(err error) telemetry.Flag {
	if f, ok := errors.AsType[*failure](err); ok {
		return f.flag
	}
	if f, ok := errors.AsType[*lateDenial](err); ok {
		return f.flag
	}
	if _, ok := errors.AsType[*crl.RevokedError](err); ok {
		return telemetry.CertRevoked
	}
	return telemetry.NoFlag
}
