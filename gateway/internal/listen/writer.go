package listen

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// writer writes one HTTP/1 response. It is the http.ResponseWriter of its request.
type writer struct {
	c      *conn
	req    *http.Request
	body   *body
	header http.Header

	wrote    bool // the head was written
	chunked  bool
	noBody   bool
	left     int64 // of the announced length; -1: not announced
	close    bool
	hijacked bool
	err      error
}

var errLength = errors.New("more content than announced")

// Header is the response's header, and after the body its trailers under http.TrailerPrefix.
func (w *writer) Header() http.Header { return w.header }

// WriteHeader writes the head. Codes below 200 but 101 may be written before the final one.
func (w *writer) WriteHeader(code int) {
	w.c.wmu.Lock()
	defer w.c.wmu.Unlock()
	w.writeHeadLocked(code)
}

func (w *writer) writeHeadLocked(code int) {
	if w.wrote || w.hijacked || w.err != nil {
		return
	}
	bw := w.c.bw
	if code >= 100 && code < 200 && code != http.StatusSwitchingProtocols {
		fmt.Fprintf(bw, "HTTP/1.1 %d %s\r\n", code, http.StatusText(code))
		w.header.Write(bw) //nolint:errcheck // bufio keeps the error for Flush
		bw.WriteString("\r\n")
		w.setErr(bw.Flush())
		return
	}
	w.wrote = true
	w.left = -1
	exclude := map[string]bool{"Connection": code != http.StatusSwitchingProtocols, "Transfer-Encoding": true}
	for name := range w.header {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			exclude[name] = true
		}
	}
	w.noBody = w.req.Method == http.MethodHead || code == http.StatusNoContent || code == http.StatusNotModified || code < 200
	if cl := w.header.Get("Content-Length"); cl != "" {
		if n, err := parseLength(cl); err == nil {
			w.left = n
		} else {
			exclude["Content-Length"] = true
		}
	}
	if w.left < 0 && !w.noBody {
		if w.req.ProtoMinor == 1 {
			w.chunked = true
		} else {
			w.close = true
		}
	}
	if !w.body.ended.Load() || w.c.isClosing() || w.c.s.leaving.Load() || hasToken(w.header["Connection"], "close") {
		w.close = true
	}
	w.c.nc.SetWriteDeadline(time.Now().Add(streamIdle)) //nolint:errcheck // a closed connection fails at the write
	fmt.Fprintf(bw, "HTTP/1.1 %d %s\r\n", code, http.StatusText(code))
	if w.header.Get("Date") == "" && code >= 200 {
		fmt.Fprintf(bw, "Date: %s\r\n", time.Now().UTC().Format(http.TimeFormat))
	}
	w.header.WriteSubset(bw, exclude) //nolint:errcheck // bufio keeps the error for Flush
	switch {
	case w.chunked:
		bw.WriteString("Transfer-Encoding: chunked\r\n")
	case w.left < 0 && !w.noBody:
	}
	if w.close && code >= 200 {
		bw.WriteString("Connection: close\r\n")
	}
	bw.WriteString("\r\n")
}

func (w *writer) setErr(err error) {
	if w.err == nil {
		w.err = err
	}
}

// Write writes content; the head goes out before it.
func (w *writer) Write(p []byte) (int, error) {
	w.c.wmu.Lock()
	defer w.c.wmu.Unlock()
	if !w.wrote {
		w.writeHeadLocked(http.StatusOK)
	}
	if w.err != nil {
		return 0, w.err
	}
	if w.noBody {
		return len(p), nil
	}
	if len(p) == 0 {
		return 0, nil
	}
	if w.left >= 0 {
		if int64(len(p)) > w.left {
			w.setErr(errLength)
			return 0, errLength
		}
		w.left -= int64(len(p))
	}
	w.c.nc.SetWriteDeadline(time.Now().Add(streamIdle)) //nolint:errcheck // a closed connection fails at the write
	bw := w.c.bw
	if w.chunked {
		bw.WriteString(strconv.FormatInt(int64(len(p)), 16))
		bw.WriteString("\r\n")
	}
	n, err := bw.Write(p)
	if w.chunked {
		bw.WriteString("\r\n")
	}
	w.setErr(err)
	return n, err
}

// Flush sends what was written.
func (w *writer) Flush() { w.FlushError() } //nolint:errcheck // FlushError is for callers who want to know

// FlushError sends what was written and says whether that worked.
func (w *writer) FlushError() error {
	w.c.wmu.Lock()
	defer w.c.wmu.Unlock()
	if !w.wrote {
		w.writeHeadLocked(http.StatusOK)
	}
	w.setErr(w.c.bw.Flush())
	return w.err
}

// Hijack hands the connection over, with what was read ahead. Nothing watches it any more.
func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.c.wmu.Lock()
	defer w.c.wmu.Unlock()
	if w.err != nil {
		return nil, nil, w.err
	}
	w.hijacked = true
	w.c.nc.SetDeadline(time.Time{}) //nolint:errcheck // a closed connection fails at its use
	return w.c.nc, bufio.NewReadWriter(w.c.br, w.c.bw), nil
}

// finish completes the message: the last chunk with trailers, or the proof that the announced length was kept.
func (w *writer) finish() {
	w.c.wmu.Lock()
	defer w.c.wmu.Unlock()
	if !w.wrote {
		if w.header.Get("Content-Length") == "" {
			w.header.Set("Content-Length", "0")
		}
		w.writeHeadLocked(http.StatusOK)
	}
	if w.chunked {
		w.c.bw.WriteString("0\r\n")
		for name, values := range w.header {
			if t, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
				http.Header{t: values}.Write(w.c.bw) //nolint:errcheck // bufio keeps the error for Flush
			}
		}
		w.c.bw.WriteString("\r\n")
	}
	if w.left > 0 && !w.noBody {
		w.setErr(errors.New("less content than announced"))
	}
	w.setErr(w.c.bw.Flush())
}
