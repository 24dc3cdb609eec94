package cniplugin

import (
	"fmt"
	"net"
	"strconv"
	"time"
)

// maxAnswer bounds what is read of the agent's answer.
const maxAnswer = 64 << 10

// refusal is the agent's word that a pod must not start now.
type refusal struct{ text string }

func (r *refusal) Error() string { return "it refuses: " + r.text }

// post sends something to one of the agent's sockets.
func post(socket, path string, body []byte, deadline time.Time) error {
	conn, err := net.DialTimeout("unix", socket, time.Until(deadline))
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	head := "POST " + path + " HTTP/1.1\r\nHost: unix\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n"
	status, answer, err := exchange(conn, head, body, maxAnswer)
	if err == nil && status != 200 {
		err = &refusal{fmt.Sprintf("%d %s", status, reason(answer))}
	}
	return err
}
