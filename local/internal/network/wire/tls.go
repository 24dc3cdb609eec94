package wire

import "encoding/binary"

// Content is what the first bytes of one direction of a connection are.
type Content int

// What bytes can be. TLS of a version before 1.3 is told by Version.
const (
	Unknown Content = iota
	HTTP            // readable HTTP/1 or the preface of HTTP/2
	TLS             // TLS records
)

func (c Content) String() string { return [...]string{"unknown", "HTTP", "TLS"}[c] }

// TLS13 is the version number of TLS 1.3 in supported_versions.
const TLS13 = 0x0304

// Classify tells what a payload is. It looks at every TLS record, as far as they are whole: one that is none makes the
// payload Unknown.
func Classify(payload []byte) Content {
	if httpStart(payload) {
		return HTTP
	}
	n := 0
	for rest := payload; len(rest) >= recordHead; n++ {
		size, ok := record(rest)
		if !ok {
			return Unknown
		}
		if len(rest) < recordHead+size {
			return TLS // goes on in the next segment
		}
		rest = rest[recordHead+size:]
		if len(rest) > 0 && len(rest) < recordHead {
			return TLS
		}
	}
	if n == 0 {
		return Unknown
	}
	return TLS
}

const (
	recordHead = 5
	handshake  = 22
	// mostRecord is 2^14 and what encryption may add (RFC 8446, 5.2).
	mostRecord = 1<<14 + 256
)

// record reads the head of a TLS record: its type, the version that all of TLS 1.2 and 1.3 write, its length.
func record(b []byte) (size int, ok bool) {
	size = int(binary.BigEndian.Uint16(b[3:]))
	return size, b[0] >= 20 && b[0] <= 24 && b[1] == 3 && b[2] <= 3 && size <= mostRecord
}

// httpStart tells whether bytes begin as a request or an answer that anybody can read.
func httpStart(b []byte) bool {
	for _, word := range []string{"GET ", "POST ", "PUT ", "HEAD ", "DELETE ", "PATCH ", "OPTIONS ", "CONNECT ", "TRACE ", "HTTP/1.", "PRI * HTTP/2"} {
		if len(b) >= len(word) && string(b[:len(word)]) == word {
			return true
		}
	}
	return false
}

// ServerVersion is the version of TLS that a ServerHello at the start of a payload chose: of TLS 1.3 that of the
// supported_versions extension (RFC 8446, 4.2.1). ok is false if there is no whole ServerHello.
func ServerVersion(payload []byte) (version uint16, ok bool) {
	if len(payload) < recordHead || payload[0] != handshake {
		return 0, false
	}
	size, ok := record(payload)
	if !ok || len(payload) < recordHead+size {
		return 0, false
	}
	const serverHello = 2
	r := reader(payload[recordHead : recordHead+size])
	kind, ok1 := r.take(1)
	head, ok2 := r.take(3)
	if !ok1 || !ok2 || kind[0] != serverHello {
		return 0, false
	}
	hello, ok := r.take(int(head[0])<<16 | int(head[1])<<8 | int(head[2]))
	if !ok {
		return 0, false
	}
	return helloVersion(hello)
}

// helloVersion reads the body: version, random, session, suite, compression, extensions.
func helloVersion(r reader) (uint16, bool) {
	legacy, ok := r.take(2)
	if !ok {
		return 0, false
	}
	if _, ok := r.take(32); !ok {
		return 0, false
	}
	if _, ok := r.vector(1); !ok {
		return 0, false
	}
	if _, ok := r.take(3); !ok {
		return 0, false
	}
	version := binary.BigEndian.Uint16(legacy)
	if len(r) == 0 {
		return version, true // extensions may be left out
	}
	all, ok := r.vector(2)
	if !ok {
		return 0, false
	}
	const supportedVersions = 43
	for len(all) > 0 {
		kind, ok1 := all.take(2)
		body, ok2 := all.vector(2)
		if !ok1 || !ok2 {
			return 0, false
		}
		if binary.BigEndian.Uint16(kind) == supportedVersions {
			if len(body) != 2 {
				return 0, false
			}
			version = binary.BigEndian.Uint16(body)
		}
	}
	return version, true
}

// reader takes bytes from the front and never beyond the end.
type reader []byte

func (r *reader) take(n int) (reader, bool) {
	if n < 0 || n > len(*r) {
		return nil, false
	}
	b := (*r)[:n]
	*r = (*r)[n:]
	return b, true
}

// vector takes bytes that follow their length, a number of so many bytes.
func (r *reader) vector(width int) (reader, bool) {
	head, ok := r.take(width)
	if !ok {
		return nil, false
	}
	n := 0
	for _, b := range head {
		n = n<<8 | int(b)
	}
	return r.take(n)
}
