// Package relay carries one request from a listener through the filters to a backend, and the response back.
package relay

import (
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/ambit-mesh/ambit/gateway/internal/listen"
)

// Edge says what a proxy at the edge believes of the headers that clients send.
type Edge struct {
	// TrustedHops is how many proxies before this one are trusted to have written x-forwarded-for. Default 0.
	TrustedHops int
}

// hopByHop are headers about one connection; they end at each proxy (RFC 9110, 7.6.1).
var hopByHop = [...]string{
	"Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer",
	"Transfer-Encoding", "Upgrade", "Http2-Settings",
}

// stripHop removes hop-by-hop headers and those that Connection names. It runs before the proxy adds its own headers:
// a client cannot make the proxy drop them.
func stripHop(h http.Header) {
	trailers := slices.Contains(h["Te"], "trailers") // gRPC asks for them end to end
	for _, v := range h["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			if name = strings.TrimSpace(name); name != "" {
				h.Del(name)
			}
		}
	}
	for _, name := range hopByHop {
		delete(h, name)
	}
	if trailers {
		h["Te"] = []string{"trailers"}
	}
}

// stripAmbiguous removes headers whose names some servers take for others' ("x_role" for "x-role").
func stripAmbiguous(h http.Header) {
	for name := range h {
		if strings.ContainsRune(name, '_') {
			delete(h, name)
		}
	}
}

// wantsUpgrade reports whether a request asks for a WebSocket. No other protocol is switched to: not h2c, which would
// carry requests past the rules.
func wantsUpgrade(r *http.Request) bool {
	return r.ProtoMajor == 1 && r.ProtoMinor == 1 && r.Method == http.MethodGet &&
		slices.ContainsFunc(r.Header["Connection"], func(v string) bool {
			return slices.ContainsFunc(strings.Split(v, ","), func(t string) bool { return strings.EqualFold(strings.TrimSpace(t), "upgrade") })
		}) && len(r.Header["Upgrade"]) == 1 && strings.EqualFold(r.Header["Upgrade"][0], "websocket")
}

// forwarded are headers by which proxies tell backends about clients, and Envoy's private ones. Clients may not write
// them: what the backend reads there is what this proxy saw.
func forwarded(name string) bool {
	switch name {
	case "Forwarded", "X-Real-Ip", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Proto", "X-Forwarded-Scheme",
		"X-Forwarded-Client-Cert", "X-Forwarded-Prefix", "X-Forwarded-Server", "X-Original-Url", "X-Rewrite-Url", "X-Http-Method-Override":
		return true
	}
	return strings.HasPrefix(name, "X-Envoy-") || strings.HasPrefix(name, "X-Istio-")
}

// stamp replaces what clients say about themselves by what the proxy knows.
func (e Edge) stamp(h http.Header, scheme string, info *listen.Info) {
	given := h["X-Forwarded-For"]
	id := h.Get("X-Request-Id")
	for name := range h {
		if forwarded(name) {
			delete(h, name)
		}
	}
	remote := addrOf(info.Remote)
	chain := trusted(given, e.TrustedHops)
	h.Set("X-Forwarded-For", strings.Join(append(chain, remote), ","))
	h.Set("X-Forwarded-Proto", scheme)
	client := remote
	if len(chain) > 0 {
		client = chain[0]
	}
	h.Set("X-Envoy-External-Address", client)
	if e.TrustedHops == 0 || id == "" || len(id) > 128 {
		id = newRequestID()
	}
	h.Set("X-Request-Id", id)
	if _, ok := h["User-Agent"]; !ok {
		h["User-Agent"] = nil // keeps the transport from naming itself
	}
}

// trusted is the last hops addresses of a forwarded-for list.
func trusted(values []string, hops int) []string {
	var all []string
	for _, v := range values {
		for a := range strings.SplitSeq(v, ",") {
			if ip, err := netip.ParseAddr(strings.TrimSpace(a)); err == nil {
				all = append(all, ip.String())
			} else {
				all = all[:0] // what came before something unreadable is worth nothing
			}
		}
	}
	return all[max(0, len(all)-hops):]
}

func addrOf(a net.Addr) string {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return "unknown"
	}
	return ap.Addr().Unmap().String()
}

// newRequestID is a random UUID.
func newRequestID() string {
	var b [16]byte
	rand.Read(b[:]) //nolint:errcheck // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// contentLength writes a length that is known into the response's headers.
func contentLength(h http.Header, n int64) {
	delete(h, "Content-Length")
	if n >= 0 {
		h.Set("Content-Length", strconv.FormatInt(n, 10))
	}
}
