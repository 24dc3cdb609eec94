package listen

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
)

// maxTrailer bounds the trailers of a chunked body, and maxChunkLine one line of its framing.
const (
	maxTrailer   = 8 << 10
	maxChunkLine = 4 << 10
)

var errBodyClosed = errors.New("the request is over")

// body reads a request's body from its connection, exactly to its end.
type body struct {
	c     *conn
	ended atomic.Bool // read to its end; the connection's next bytes are another request's

	mu      sync.Mutex // guards below; held while reading
	f       framing
	left    int64 // of the length, or of the chunk
	started bool  // a chunked body's first chunk line was read
	asked   bool  // 100 Continue is not owed any more
	err     error // sticky; io.EOF at the end
	trailer http.Header
	read    int64
}

func newBody(c *conn, f framing, expectContinue bool) *body {
	b := &body{c: c, f: f, left: f.length, asked: !expectContinue}
	if f.chunked {
		b.left = 0
	}
	if !f.chunked && f.length == 0 {
		b.err = io.EOF
		b.ended.Store(true)
	}
	return b
}

func (b *body) end() {
	b.ended.Store(true)
	b.c.watchClient()
}

// Read reads on. Each read may wait as long as a stream may be idle.
func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return 0, b.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if !b.asked {
		b.asked = true
		if err := b.c.sendContinue(); err != nil {
			b.err = err
			return 0, err
		}
	}
	b.c.readDeadline(streamIdle)
	if b.f.chunked && b.left == 0 {
		if b.err = b.nextChunk(); b.err != nil {
			return 0, b.err
		}
	}
	n, err := b.c.br.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	b.read += int64(n)
	switch {
	case err == io.EOF:
		b.err = io.ErrUnexpectedEOF
	case err != nil:
		b.err = err
	case b.left == 0 && !b.f.chunked:
		b.err = io.EOF
		b.end()
	}
	if n > 0 && (err == nil || b.err == io.EOF) {
		if b.err == io.EOF {
			return n, io.EOF
		}
		return n, nil
	}
	return n, b.err
}

// nextChunk reads the framing up to the next chunk's data; io.EOF at the last one.
func (b *body) nextChunk() error {
	if b.started {
		if line, err := chunkLine(b.c.br); err != nil || len(line) != 0 {
			return framingError(err, "chunk does not end where it said")
		}
	}
	b.started = true
	line, err := chunkLine(b.c.br)
	if err != nil {
		return framingError(err, "chunk line")
	}
	size, err := parseChunkSize(line)
	if err != nil {
		return err
	}
	if size > 0 {
		b.left = size
		return nil
	}
	b.trailer = http.Header{}
	for total := 0; ; {
		line, err := chunkLine(b.c.br)
		if err != nil {
			return framingError(err, "trailer")
		}
		if len(line) == 0 {
			b.end()
			return io.EOF
		}
		if total += len(line); total > maxTrailer {
			return bad("trailers are larger than 8 KiB")
		}
		name, value, err := parseField(line)
		if err != nil {
			return err
		}
		if trailerAllowed(name) {
			b.trailer[name] = append(b.trailer[name], value)
		}
	}
}

func framingError(err error, what string) error {
	if err == nil || errors.Is(err, bufio.ErrBufferFull) {
		return bad(what)
	}
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// chunkLine reads one line that ends with CR LF and holds no other CR.
func chunkLine(br *bufio.Reader) ([]byte, error) {
	line, err := br.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	if len(line) > maxChunkLine {
		return nil, bad("chunk line is too long")
	}
	content, _, ok := cutLine(line)
	if !ok {
		return nil, bad("a chunk line ends without CR")
	}
	return content, nil
}

// parseChunkSize reads hexadecimal digits and, after a semicolon, an extension that is ignored.
func parseChunkSize(line []byte) (int64, error) {
	var n int64
	i := 0
	for ; i < len(line); i++ {
		c := line[i]
		var d int64
		switch {
		case c >= '0' && c <= '9':
			d = int64(c - '0')
		case c >= 'a' && c <= 'f':
			d = int64(c-'a') + 10
		case c >= 'A' && c <= 'F':
			d = int64(c-'A') + 10
		default:
			d = -1
		}
		if d < 0 {
			break
		}
		if i == 15 {
			return 0, bad("chunk size")
		}
		n = n<<4 | d
	}
	if i == 0 || i < len(line) && line[i] != ';' {
		return 0, bad("chunk size")
	}
	for _, c := range line[i:] {
		if c < ' ' && c != '\t' || c == 0x7f {
			return 0, bad("chunk extension")
		}
	}
	return n, nil
}

func trailerAllowed(name string) bool {
	switch name {
	case "Transfer-Encoding", "Content-Length", "Host", "Trailer", "Connection", "Authorization", "Content-Encoding", "Content-Type", "Te", "Upgrade":
		return false
	}
	return true
}

// Close ends reading. A reader that waits for the client is woken by the connection's deadline.
func (b *body) Close() error {
	if b.ended.Load() {
		return nil
	}
	b.c.readDeadline(-1)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.err = errBodyClosed
	}
	return nil
}
