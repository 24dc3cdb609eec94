package e2e

import (
	"bufio"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// kubeexecCommand runs a program in a pod as kubectl exec does, by a websocket of Kubernetes' API, with a file as
// its input: kubeexec [-i FILE] NAMESPACE POD WANTED-STATUS COMMAND... Output and errors become the command's.
func kubeexecCommand(ts *testscript.TestScript, neg bool, args []string) {
	file := ""
	if len(args) > 1 && args[0] == "-i" {
		file, args = args[1], args[2:]
	}
	if neg || len(args) < 4 {
		ts.Fatalf("usage: kubeexec [-i FILE] NAMESPACE POD STATUS COMMAND...")
	}
	q := url.Values{"command": args[3:], "stdout": {"true"}, "stderr": {"true"}}
	if file != "" {
		q.Set("stdin", "true")
	}
	c, err := net.Dial("unix", filepath.Join(ts.Getenv("STATE"), "api.sock"))
	ts.Check(err)
	defer c.Close()
	key := make([]byte, 16)
	_, _ = rand.Read(key)
	_, err = fmt.Fprintf(c, "GET /api/v1/namespaces/%s/pods/%s/exec?%s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n",
		args[0], args[1], q.Encode(), base64.StdEncoding.EncodeToString(key))
	ts.Check(err)
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	ts.Check(err)
	if resp.StatusCode != http.StatusSwitchingProtocols {
		b, err := io.ReadAll(resp.Body)
		ts.Fatalf("%s: %s %v", resp.Status, b, err)
	}
	if file != "" {
		ts.Check(maskedFrame(c, append([]byte{0}, ts.ReadFile(file)...)))
		ts.Check(maskedFrame(c, []byte{255, 0}))
	}
	status := ""
	for status == "" {
		m, err := serverFrame(r)
		ts.Check(err)
		switch m[0] {
		case 1:
			fmt.Fprintf(ts.Stdout(), "%s", m[1:])
		case 2:
			fmt.Fprintf(ts.Stderr(), "%s", m[1:])
		case 3:
			status = string(m[1:])
		}
	}
	var st struct {
		Status  string
		Details struct{ Causes []struct{ Message string } }
	}
	ts.Check(json.Unmarshal([]byte(status), &st))
	got := map[string]string{"Success": "0"}[st.Status]
	if len(st.Details.Causes) > 0 {
		got = st.Details.Causes[0].Message
	}
	if got != args[2] {
		ts.Fatalf("ended with %q, want %s: %s", got, args[2], strings.TrimSpace(status))
	}
}

func maskedFrame(w io.Writer, payload []byte) error {
	head := []byte{0x82, 0x80 | 126}
	head = binary.BigEndian.AppendUint16(head, uint16(len(payload)))
	_, err := w.Write(append(append(head, 0, 0, 0, 0), payload...)) // masked by nothing
	return err
}

func serverFrame(r *bufio.Reader) ([]byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := uint64(head[1])
	if size := map[uint64]int{126: 2, 127: 8}[n]; size > 0 {
		var b [8]byte
		if _, err := io.ReadFull(r, b[8-size:]); err != nil {
			return nil, err
		}
		n = binary.BigEndian.Uint64(b[:])
	}
	payload := make([]byte, n)
	_, err := io.ReadFull(r, payload)
	if err == nil && (head[0] != 0x82 || n == 0) {
		err = fmt.Errorf("frame %x of %d bytes", head[0], n)
	}
	return payload, err
}
