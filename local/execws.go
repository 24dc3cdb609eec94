package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/local/client"
	"github.com/ambit-mesh/ambit/local/internal/runtime"
	"github.com/ambit-mesh/ambit/local/internal/store"
	"github.com/ambit-mesh/ambit/local/internal/websocket"
)

// The channels of Kubernetes' streams.
const (
	chanIn     = 0
	chanOut    = 1
	chanDiag   = 2
	chanStatus = 3
	chanSize   = 4
	chanEnd    = 255 // of another channel
)

// execDrain bounds how long output is awaited from what a program left behind.
const execDrain = 500 * time.Millisecond

// execute runs a program in a container for clients of Kubernetes' API, kubectl exec among them.
func (c *inside) execute(w http.ResponseWriter, r *http.Request) {
	if !websocket.Wanted(r) {
		refuse(w, http.StatusBadRequest, "exec comes by a websocket here: use kubectl 1.31 or newer, or `ambit local exec`")
		return
	}
	q := r.URL.Query()
	pod, err := store.Get[*corev1.Pod](c.store, r.PathValue("namespace"), r.PathValue("pod"))
	if err != nil {
		refuse(w, http.StatusNotFound, err.Error())
		return
	}
	k, err := c.kubeletOf(pod)
	if err != nil {
		refuse(w, http.StatusConflict, err.Error())
		return
	}
	container, err := k.Container(pod.Namespace, pod.Name, q.Get("container"))
	if err != nil {
		refuse(w, http.StatusConflict, err.Error())
		return
	}
	s, err := newStreams(q.Get("tty") == "true" || q.Get("tty") == "1", q.Get("stdin") == "true" || q.Get("stdin") == "1")
	if err != nil {
		refuse(w, http.StatusInternalServerError, err.Error())
		return
	}
	defer s.close()
	ws, err := websocket.Accept(w, r, []string{"v5.channel.k8s.io", "v4.channel.k8s.io"})
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	cmd, err := container.Exec(runtime.Command{Argv: q["command"], Files: s.theirs, TTY: s.tty})
	s.started()
	code := 0
	if err == nil {
		code, err = s.run(ws, cmd)
	}
	if err := ws.Write(chanStatus, execStatus(code, err)); err != nil {
		c.log.Debug("exec: client left before the answer", "error", err)
	}
	if err := ws.Close(); err != nil {
		c.log.Debug("exec: client did not wait for the end", "error", err)
	}
	s.readers.Wait()
}

func refuse(w http.ResponseWriter, code int, why string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Message: why, Code: int32(code)})
}

// execStatus is how a program ended, in the words of Kubernetes' API.
func execStatus(code int, err error) []byte {
	st := metav1.Status{Status: metav1.StatusSuccess}
	switch {
	case err != nil:
		st = metav1.Status{Status: metav1.StatusFailure, Reason: metav1.StatusReasonInternalError, Message: err.Error(), Code: http.StatusInternalServerError}
	case code != 0:
		st = metav1.Status{
			Status: metav1.StatusFailure, Reason: "NonZeroExitCode", Message: fmt.Sprintf("command terminated with non-zero exit code: %d", code),
			Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: "ExitCode", Message: strconv.Itoa(code)}}},
		}
	}
	b, merr := json.Marshal(st)
	if merr != nil {
		return []byte(`{"status":"Failure"}`) // three words and a number
	}
	return b
}

// streams are a program's, and our ends of them.
type streams struct {
	tty     bool
	theirs  []*os.File
	in      *os.File          // nil without input
	outputs map[byte]*os.File // by channel
	readers sync.WaitGroup    // of what the client says
}

func newStreams(tty, input bool) (*streams, error) {
	s := &streams{tty: tty, outputs: map[byte]*os.File{}}
	if tty {
		master, slave, err := client.OpenTerminal()
		if err != nil {
			return nil, fmt.Errorf("exec: make a terminal: %w", err)
		}
		s.in, s.outputs[chanOut], s.theirs = master, master, []*os.File{slave, slave, slave}
		return s, nil
	}
	s.theirs = make([]*os.File, 3)
	if input {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		s.theirs[0], s.in = r, w
	}
	for _, channel := range []byte{chanOut, chanDiag} {
		r, w, err := os.Pipe()
		if err != nil {
			s.close()
			return nil, err
		}
		s.theirs[channel], s.outputs[channel] = w, r
	}
	return s, nil
}

// started lets go of the program's own ends.
func (s *streams) started() {
	for _, f := range s.theirs {
		if f != nil {
			f.Close()
		}
	}
	s.theirs = nil
}

func (s *streams) close() {
	s.started()
	if s.in != nil {
		s.in.Close()
	}
	for _, f := range s.outputs {
		f.Close()
	}
}

// run carries a program's streams until it ends. The program dies with the client.
func (s *streams) run(ws *websocket.Conn, cmd *exec.Cmd) (int, error) {
	s.readers.Go(func() {
		s.hear(ws)
		kill(cmd, syscall.SIGKILL) // of no effect on one that has ended
	})
	var shown sync.WaitGroup
	for channel, from := range s.outputs {
		shown.Go(func() { say(ws, channel, from) })
	}
	code, err := status(cmd.Wait())
	all := make(chan struct{})
	go func() {
		shown.Wait()
		close(all)
	}()
	select {
	case <-all:
	case <-time.After(execDrain):
		for _, f := range s.outputs {
			err = errors.Join(err, f.Close())
		}
		<-all
	}
	return code, err
}

// say sends what the program writes.
func say(ws *websocket.Conn, channel byte, from *os.File) {
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if n > 0 {
			if werr := ws.Write(channel, b[:n]); werr != nil {
				ws.Cut()
				return
			}
		}
		if err != nil {
			return // it ended, or its terminal did
		}
	}
}

// hear passes on what the client sends until it leaves.
func (s *streams) hear(ws *websocket.Conn) {
	for {
		m, err := ws.Read()
		if err != nil {
			return
		}
		if len(m) == 0 {
			continue
		}
		switch m[0] {
		case chanIn:
			if s.in != nil && len(m) > 1 {
				_, _ = s.in.Write(m[1:]) // a program need not read what it is told
			}
		case chanEnd:
			if s.in != nil && !s.tty && len(m) > 1 && m[1] == chanIn {
				s.in.Close()
			}
		case chanSize:
			var size struct{ Width, Height uint16 }
			if s.tty && json.Unmarshal(m[1:], &size) == nil {
				_ = resizeTerminal(s.in, size.Width, size.Height) // it looks odd, no more
			}
		}
	}
}

func resizeTerminal(f *os.File, width, height uint16) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return errors.Join(raw.Control(func(fd uintptr) {
		err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: height, Col: width})
	}), err)
}
