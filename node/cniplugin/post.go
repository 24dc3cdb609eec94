package cniplugin

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// maxAnswer bounds what is read of the agent's answer.
const maxAnswer = 64 << 10

// post sends one HTTP/1.1 request over a unix socket and reads the status: an HTTP library would be most of this
// plugin, which is started anew for each pod.
func post(socket, path string, body []byte, deadline time.Time) error {
	conn, err := net.DialTimeout("unix", socket, time.Until(deadline))
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	head := "POST " + path + " HTTP/1.1\r\nHost: unix\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n"
	if _, err := conn.Write(append([]byte(head), body...)); err != nil {
		return err
	}
	answer := make([]byte, 0, 4096)
	for len(answer) < maxAnswer {
		b := make([]byte, 4096)
		n, err := conn.Read(b)
		answer = append(answer, b[:n]...)
		if status, text, ok := parseAnswer(answer, err != nil); ok {
			if status == 200 {
				return nil
			}
			return fmt.Errorf("it refuses: %d %s", status, text)
		}
		if err != nil {
			return fmt.Errorf("its answer is cut: %w", err)
		}
	}
	return errors.New("its answer is too long")
}

// parseAnswer reads status and body of an answer. ok is false while more must be read; at the end of the connection
// what is there must do.
func parseAnswer(b []byte, ended bool) (status int, text string, ok bool) {
	head, body, whole := bytes.Cut(b, []byte("\r\n\r\n"))
	if !whole {
		return 0, "", false
	}
	lines := strings.Split(string(head), "\r\n")
	proto, rest, _ := strings.Cut(lines[0], " ")
	code, _, _ := strings.Cut(rest, " ")
	n, err := strconv.Atoi(code)
	if err != nil || n < 100 || n > 999 || !strings.HasPrefix(proto, "HTTP/1.") {
		return 0, "", false
	}
	want := -1
	for _, l := range lines[1:] {
		k, v, _ := strings.Cut(l, ":")
		if strings.EqualFold(k, "Content-Length") {
			if want, err = strconv.Atoi(strings.TrimSpace(v)); err != nil || want < 0 || want > maxAnswer {
				return 0, "", false
			}
		}
	}
	if n != 200 && !ended && (want < 0 || len(body) < want) {
		return 0, "", false // the reason is in the body
	}
	return n, strings.TrimSpace(strings.ToValidUTF8(string(body), "?")), true
}
