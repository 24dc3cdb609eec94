package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"

	"github.com/ambit-mesh/ambit/local/client"
	"github.com/ambit-mesh/ambit/mesh"
)

// wire is what was seen between the nodes of connections of the application's pods.
type wire struct {
	mu       sync.Mutex              // guards below
	http     []string                // first lines of readable HTTP
	plain    int                     // segments with payload that are neither TLS nor HTTP
	tls      map[netip.AddrPort]bool // servers that spoke TLS, by address
	hello    int                     // server hellos of TLS 1.3
	older    int                     // server hellos of an older TLS
	segments int
}

// take sorts one segment. Only connections of the given pods count: the control plane's are not the application's.
func (x *wire) take(s client.Segment, pods map[netip.Addr]bool) {
	if !pods[s.From.Addr().Unmap()] && !pods[s.To.Addr().Unmap()] {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.segments++
	switch line, readable := httpLine(s.Payload); {
	case readable:
		x.http = append(x.http, fmt.Sprintf("%s → %s  %s", s.From, s.To, line))
	case s.To.Port() == mesh.PortHBONE || s.From.Port() == mesh.PortHBONE:
		server := s.To
		if s.From.Port() == mesh.PortHBONE {
			server = s.From
			switch version := serverHello(s.Payload); version {
			case 0:
			case tls13:
				x.hello++
			default:
				x.older++
			}
		}
		x.tls[server] = true
	default:
		x.plain++
	}
}

// httpLine gives the first line of a request or answer in clear.
func httpLine(b []byte) (string, bool) {
	line, _, _ := bytes.Cut(b, []byte("\r\n"))
	if len(line) > 200 {
		return "", false
	}
	text := string(line)
	if strings.HasPrefix(text, "HTTP/1.") || strings.HasSuffix(text, " HTTP/1.1") || strings.HasSuffix(text, " HTTP/1.0") || strings.HasPrefix(text, "PRI * HTTP/2") {
		return text, true
	}
	return "", false
}

const tls13 = 0x0304

// serverHello gives the TLS version that a server chose, if the segment begins with its hello (RFC 8446, 4.1.3), else 0.
func serverHello(b []byte) uint16 {
	const record, handshake = 5, 4
	if len(b) < record+handshake+2+32+1 || b[0] != 22 || b[record] != 2 {
		return 0
	}
	body := b[record+handshake:]
	version := uint16(body[0])<<8 | uint16(body[1])
	session := int(body[34])
	rest := body[35:]
	if len(rest) < session+2+1+2 {
		return version
	}
	ext := rest[session+2+1+2:]
	for len(ext) >= 4 {
		kind, size := uint16(ext[0])<<8|uint16(ext[1]), int(ext[2])<<8|int(ext[3])
		if len(ext) < 4+size {
			break
		}
		if kind == 43 && size == 2 { // supported_versions
			return uint16(ext[4])<<8 | uint16(ext[5])
		}
		ext = ext[4+size:]
	}
	return version
}

// listen reads the wire between the nodes while f runs.
func (w *Walk) listen(ctx context.Context, f func(context.Context) error) (*wire, error) {
	pods, err := w.pods(ctx)
	if err != nil {
		return nil, err
	}
	ours := map[netip.Addr]bool{}
	for _, p := range pods {
		if ip, err := netip.ParseAddr(p.Status.PodIP); err == nil {
			ours[ip] = true
		}
	}
	x := &wire{tls: map[netip.AddrPort]bool{}}
	listening, stop := context.WithCancel(ctx)
	wait, err := w.API.Capture(listening, func(s client.Segment) { x.take(s, ours) })
	if err != nil {
		stop()
		return nil, fmt.Errorf("capture: %w", err)
	}
	err = f(ctx)
	stop()
	return x, errors.Join(err, wait())
}

// wire is step e.
func (w *Walk) wire(ctx context.Context) error {
	if len(w.clear.http) == 0 {
		return errors.New("before enrolment no readable HTTP crossed the wire: the proof would prove nothing")
	}
	w.ui.line("  before: %d readable HTTP lines between the nodes, such as", len(w.clear.http))
	w.ui.proof(w.clear.http[0])
	sealed, err := w.listen(ctx, func(ctx context.Context) error {
		for range 5 {
			for _, from := range []string{"sleep", "notsleep"} {
				if _, err := w.page(ctx, from); err != nil {
					return err
				}
			}
			if _, err := w.browse(ctx, "/productpage"); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	switch {
	case len(sealed.http) > 0:
		return fmt.Errorf("after enrolment HTTP is still readable on the wire: %s", sealed.http[0])
	case sealed.plain > 0:
		return fmt.Errorf("after enrolment %d segments crossed the wire outside HBONE", sealed.plain)
	case sealed.older > 0:
		return fmt.Errorf("%d servers chose a TLS older than 1.3", sealed.older)
	case len(sealed.tls) == 0:
		return errors.New("after enrolment nothing at all crossed the wire: the proof would prove nothing")
	}
	w.ui.line("  after:  0 readable lines; %d segments, all TLS to port %d of %d pods", sealed.segments, mesh.PortHBONE, len(sealed.tls))
	if sealed.hello > 0 {
		w.ui.line("          %d handshakes seen, all TLS 1.3", sealed.hello)
	}
	return nil
}
