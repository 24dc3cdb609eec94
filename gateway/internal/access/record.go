// Package access holds what the access log and the metrics tell of one request.
package access

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/api/l7"
)

// Flags that say how a request failed, as Envoy's users know them.
const (
	NoRoute              = "NR"
	NoHealthyUpstream    = "UH"
	NoCluster            = "NC"
	UpstreamConnect      = "UF"
	UpstreamTermination  = "UC"
	UpstreamTimeout      = "UT"
	RetryLimit           = "URX"
	DownstreamTerminated = "DC"
	DownstreamProtocol   = "DPE"
	UpstreamProtocol     = "UPE"
	UpstreamOverflow     = "UO"
	UpstreamReset        = "UR"
	DelayInjected        = "DI"
	FaultInjected        = "FI"
)

// Record is one finished request, or connection that carried bytes.
type Record struct {
	Stream           bool // a connection; it has no request, status or headers
	Start            time.Time
	Method           string
	Path             string // as the client sent it
	Protocol         string
	Status           int // 0: nothing was answered
	Flags            []string
	Details          string
	Termination      string
	TransportFailure string
	BytesReceived    int64
	BytesSent        int64
	Duration         time.Duration
	UpstreamTime     time.Duration // until the response's headers; 0: no response
	ForwardedFor     string
	UserAgent        string
	RequestID        string
	Authority        string
	UpstreamHost     string
	UpstreamLocal    string
	DownstreamLocal  string
	DownstreamRemote string
	ServerName       string
	RouteName        string
	GRPC             bool
	GRPCStatus       string
	MessagesReceived int64 // of gRPC
	MessagesSent     int64

	Backend  *l7.Backend  // nil: none was chosen
	Endpoint *l7.Endpoint // nil: none was chosen
}

// Flag adds a response flag once.
func (r *Record) Flag(f string) {
	for _, have := range r.Flags {
		if have == f {
			return
		}
	}
	r.Flags = append(r.Flags, f)
}

// ResponseFlags is the flags in one word, "-" for none.
func (r *Record) ResponseFlags() string {
	if len(r.Flags) == 0 {
		return "-"
	}
	return strings.Join(r.Flags, ",")
}

// Cluster names the backend as Istio's users know it.
func (r *Record) Cluster() string {
	if r.Backend == nil {
		return "-"
	}
	b := r.Backend
	return "outbound|" + strconv.Itoa(int(b.GetPort())) + "|" + b.GetSubset() + "|" + b.GetHostname()
}

const stamp = "2006-01-02T15:04:05.000Z"

// Text is the record as one line, in the order of Istio's default format.
func (r *Record) Text() string {
	b := make([]byte, 0, 512)
	word := func(s string) { b = append(b, ' '); b = appendPlain(b, s) }
	quoted := func(s string) { b = append(b, ' '); b = appendQuoted(b, s) }
	num := func(n int64) { b = append(b, ' '); b = strconv.AppendInt(b, n, 10) }
	b = append(b, '[')
	b = r.Start.UTC().AppendFormat(b, stamp)
	b = append(b, ']')
	quoted(r.Method + " " + r.Path + " " + r.Protocol)
	num(int64(r.Status))
	word(r.ResponseFlags())
	word(r.Details)
	word(r.Termination)
	quoted(r.TransportFailure)
	num(r.BytesReceived)
	num(r.BytesSent)
	num(r.Duration.Milliseconds())
	word(r.upstreamTime())
	quoted(r.ForwardedFor)
	quoted(r.UserAgent)
	quoted(r.RequestID)
	quoted(r.Authority)
	quoted(r.UpstreamHost)
	word(r.Cluster())
	word(r.UpstreamLocal)
	word(r.DownstreamLocal)
	word(r.DownstreamRemote)
	word(r.ServerName)
	word(r.RouteName)
	return string(b)
}

func (r *Record) upstreamTime() string {
	if r.UpstreamTime == 0 {
		return "-"
	}
	return strconv.FormatInt(r.UpstreamTime.Milliseconds(), 10)
}

// line is the record as JSON; null is what Istio writes for what is not there.
type line struct {
	StartTime        string  `json:"start_time"`
	RouteName        *string `json:"route_name"`
	Method           *string `json:"method"`
	Path             *string `json:"path"`
	Protocol         *string `json:"protocol"`
	ResponseCode     int     `json:"response_code"`
	ResponseFlags    string  `json:"response_flags"`
	Details          *string `json:"response_code_details"`
	Termination      *string `json:"connection_termination_details"`
	BytesReceived    int64   `json:"bytes_received"`
	BytesSent        int64   `json:"bytes_sent"`
	Duration         int64   `json:"duration"`
	UpstreamTime     *string `json:"upstream_service_time"`
	ForwardedFor     *string `json:"x_forwarded_for"`
	UserAgent        *string `json:"user_agent"`
	RequestID        *string `json:"request_id"`
	Authority        *string `json:"authority"`
	UpstreamHost     *string `json:"upstream_host"`
	UpstreamCluster  *string `json:"upstream_cluster"`
	UpstreamLocal    *string `json:"upstream_local_address"`
	DownstreamLocal  *string `json:"downstream_local_address"`
	DownstreamRemote *string `json:"downstream_remote_address"`
	ServerName       *string `json:"requested_server_name"`
	TransportFailure *string `json:"upstream_transport_failure_reason"`
}

// JSON is the record as one JSON object.
func (r *Record) JSON() (string, error) {
	opt := func(s string) *string {
		if s == "" || s == "-" {
			return nil
		}
		return &s
	}
	b, err := json.Marshal(line{
		StartTime: r.Start.UTC().Format(stamp), RouteName: opt(r.RouteName), Method: opt(r.Method), Path: opt(r.Path),
		Protocol: opt(r.Protocol), ResponseCode: r.Status, ResponseFlags: r.ResponseFlags(), Details: opt(r.Details),
		Termination: opt(r.Termination), BytesReceived: r.BytesReceived, BytesSent: r.BytesSent,
		Duration: r.Duration.Milliseconds(), UpstreamTime: opt(r.upstreamTime()), ForwardedFor: opt(r.ForwardedFor),
		UserAgent: opt(r.UserAgent), RequestID: opt(r.RequestID), Authority: opt(r.Authority), UpstreamHost: opt(r.UpstreamHost),
		UpstreamCluster: opt(r.Cluster()), UpstreamLocal: opt(r.UpstreamLocal), DownstreamLocal: opt(r.DownstreamLocal),
		DownstreamRemote: opt(r.DownstreamRemote), ServerName: opt(r.ServerName), TransportFailure: opt(r.TransportFailure),
	})
	return string(b), err
}

// appendPlain writes an unquoted word: it can hold no blank, so that columns stay columns.
func appendPlain(b []byte, s string) []byte {
	if s == "" {
		return append(b, '-')
	}
	return appendEscaped(b, s, true)
}

func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	if s == "" {
		b = append(b, '-')
	}
	return append(appendEscaped(b, s, false), '"')
}

// appendEscaped keeps foreign bytes from forging lines, columns or terminal codes.
func appendEscaped(b []byte, s string, blank bool) []byte {
	const hex = "0123456789abcdef"
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ' || c >= 0x7f:
			b = append(b, '\\', 'x', hex[c>>4], hex[c&15])
		case c == ' ' && blank:
			b = append(b, '_')
		default:
			b = append(b, c)
		}
	}
	return b
}
