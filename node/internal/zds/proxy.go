package zds

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/ambit-mesh/ambit/api/zds"
)

// deadline of each packet, Istio's.
const deadline = 5 * time.Second

// maxPacket is more than any answer needs.
const maxPacket = 8 << 10

// RefusedError is a proxy's answer that it cannot take a workload now; it may be asked again.
type RefusedError struct{ Why string }

func (e *RefusedError) Error() string { return "it refuses: " + e.Why }

// proxy is one connection. Its owner asks one thing at a time.
type proxy struct {
	conn    *net.UnixConn
	answers chan *zds.WorkloadResponse
	gone    chan struct{}

	mu      sync.Mutex // guards below
	missing map[string]bool
}

func newProxy(c *net.UnixConn) *proxy {
	return &proxy{conn: c, answers: make(chan *zds.WorkloadResponse), gone: make(chan struct{}), missing: map[string]bool{}}
}

func (p *proxy) lacks(uid string) {
	p.mu.Lock()
	p.missing[uid] = true
	p.mu.Unlock()
}

func (p *proxy) has(uid string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.missing[uid]
}

// hello reads the first packet.
func (p *proxy) hello() error {
	if err := p.conn.SetReadDeadline(time.Now().Add(deadline)); err != nil {
		return err
	}
	b := make([]byte, maxPacket)
	n, err := p.conn.Read(b)
	if err != nil {
		return fmt.Errorf("no hello: %w", err)
	}
	hello, err := parseHello(b[:n])
	if err != nil {
		return err
	}
	if hello.GetVersion() != zds.Version_V1 {
		return fmt.Errorf("it speaks version %v, we speak %v", hello.GetVersion(), zds.Version_V1)
	}
	return p.conn.SetReadDeadline(time.Time{})
}

func parseHello(b []byte) (*zds.ZdsHello, error) {
	h := &zds.ZdsHello{}
	if err := proto.Unmarshal(b, h); err != nil {
		return nil, fmt.Errorf("hello is not understood: %w", err)
	}
	return h, nil
}

func parseAnswer(b []byte) (*zds.WorkloadResponse, error) {
	r := &zds.WorkloadResponse{}
	if err := proto.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("answer is not understood: %w", err)
	}
	if r.GetAck() == nil {
		return nil, errors.New("answer is no ack")
	}
	return r, nil
}

// read passes answers on until the connection breaks; it also notices that a silent proxy has gone.
func (p *proxy) read() error {
	defer close(p.gone)
	b := make([]byte, maxPacket)
	for {
		n, err := p.conn.Read(b)
		if err != nil {
			return err
		}
		if n == 0 {
			return errors.New("it closed the connection")
		}
		r, err := parseAnswer(b[:n])
		if err != nil {
			return err
		}
		t := time.NewTimer(deadline)
		select {
		case p.answers <- r:
			t.Stop()
		case <-t.C:
			return errors.New("it answers what it was not asked")
		}
	}
}

func (p *proxy) add(w Workload) error {
	err := p.ask(&zds.WorkloadRequest{Payload: &zds.WorkloadRequest_Add{Add: &zds.AddWorkload{
		Uid: w.UID, WorkloadInfo: &zds.WorkloadInfo{Name: w.Name, Namespace: w.Namespace, ServiceAccount: w.ServiceAccount},
	}}}, unix.UnixRights(int(w.NS.File().Fd())))
	if err == nil {
		p.mu.Lock()
		delete(p.missing, w.UID)
		p.mu.Unlock()
	}
	return err
}

// ask sends a request and waits for its answer. A proxy that does not answer in time is cut off.
func (p *proxy) ask(req *zds.WorkloadRequest, rights []byte) error {
	b, err := proto.Marshal(req)
	if err != nil {
		return err
	}
	if err := p.conn.SetWriteDeadline(time.Now().Add(deadline)); err != nil {
		return err
	}
	if _, _, err := p.conn.WriteMsgUnix(b, rights, nil); err != nil {
		return err
	}
	t := time.NewTimer(deadline)
	defer t.Stop()
	select {
	case r := <-p.answers:
		if why := r.GetAck().GetError(); why != "" {
			return &RefusedError{why}
		}
		return nil
	case <-p.gone:
		return errors.New("it is gone")
	case <-t.C:
		p.conn.Close()
		return errors.New("it does not answer")
	}
}
