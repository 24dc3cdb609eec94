package cniplugin

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
)

// exchange sends one HTTP request and reads the whole answer: an HTTP library would be more than all else in this plugin,
// which is started anew for each pod. The request must ask for the connection's end.
func exchange(conn net.Conn, head string, body []byte, most int) (status int, answer []byte, err error) {
	if _, err := conn.Write(append([]byte(head+"\r\n"), body...)); err != nil {
		return 0, nil, err
	}
	all := make([]byte, 0, 4096)
	for {
		if len(all) == cap(all) {
			all = append(all, 0)[:len(all)]
		}
		n, err := conn.Read(all[len(all):cap(all)])
		all = all[:len(all)+n]
		if len(all) > most {
			return 0, nil, fmt.Errorf("the answer is longer than %d bytes", most)
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, nil, fmt.Errorf("the answer is cut: %w", err)
		}
		status, answer, whole := parseAnswer(all, err != nil)
		if whole {
			return status, answer, nil
		}
		if err != nil {
			return 0, nil, errors.New("the answer is cut or no HTTP")
		}
	}
}

// parseAnswer reads status and body of an answer. whole is false while more must be read. Without a length the body ends with
// the connection; one that comes in chunks, which was not asked for, is never whole.
func parseAnswer(b []byte, ended bool) (status int, body []byte, whole bool) {
	head, body, ok := bytes.Cut(b, []byte("\r\n\r\n"))
	if !ok {
		return 0, nil, false
	}
	lines := strings.Split(string(head), "\r\n")
	proto, rest, _ := strings.Cut(lines[0], " ")
	code, _, _ := strings.Cut(rest, " ")
	n, err := strconv.Atoi(code)
	if err != nil || n < 100 || n > 999 || !strings.HasPrefix(proto, "HTTP/1.") {
		return 0, nil, false
	}
	want := -1
	for _, l := range lines[1:] {
		switch k, v, _ := strings.Cut(l, ":"); {
		case strings.EqualFold(k, "Transfer-Encoding"):
			return 0, nil, false
		case strings.EqualFold(k, "Content-Length"):
			if want, err = strconv.Atoi(strings.TrimSpace(v)); err != nil || want < 0 {
				return 0, nil, false
			}
		}
	}
	switch {
	case want < 0 && ended:
		return n, body, true
	case want < 0 || len(body) < want:
		return 0, nil, false
	}
	return n, body[:want], true
}

// reason is what an answer says, for an error.
func reason(body []byte) string {
	return strings.TrimSpace(strings.ToValidUTF8(string(body[:min(len(body), 2048)]), "?"))
}
