// Package telemetry says what happened to connections: metrics, access records and logs under Istio's names.
package telemetry

// Flag is the response flag of a connection: why it failed, or NoFlag.
type Flag string

// The response flags.
const (
	NoFlag          Flag = "-"
	Denied          Flag = "DENY"
	ConnectFailed   Flag = "CONNECT"
	TLSFailed       Flag = "TLS_FAILURE"
	HandshakeFailed Flag = "H2_HANDSHAKE_FAILURE"
	NetworkPolicy   Flag = "NETWORK_POLICY"
	IdentityFailed  Flag = "IDENTITY_ERROR"
	CertRevoked     Flag = "CERT_REVOKED"
)

// String is the flag as metrics show it; the zero value shows as NoFlag.
func (f Flag) String() string {
	if f == "" {
		return string(NoFlag)
	}
	return string(f)
}
