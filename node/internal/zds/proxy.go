package zds

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/ambit-mesh/ambit/api/zds"
	"github.com/ambit-mesh/ambit/linux/netns"
)

// deadline of each packet, Istio's.
const deadline = 5 * time.Second

// maxPacket is more than any answer needs.
const maxPacket = 8 << 10

// RefusedError is a proxy's answer that it cannot take a workload now; it may be asked again.
type RefusedError struct{ Why string }

func (e *RefusedError) Error() string { return "it refuses: " + e.Why }

// proxy is one connection.
type proxy struct {
	conn    *net.UnixConn
	within  time.Duration // how long it may take for one packet
	asked   atomic.Bool   // whether an answer is due
	answers chan *zds.WorkloadResponse
	gone    chan struct{}
	ready   bool // under the server's lock

	turn sync.Mutex          // one thing is asked at a time; guards told
	told map[string]netns.ID // workloads that it may have, by uid; the namespace is zero for those it refused
}

func newProxy(c *net.UnixConn, within time.Duration) *proxy {
	return &proxy{conn: c, within: within, answers: make(chan *zds.WorkloadResponse, 1), gone: make(chan struct{}), told: map[string]netns.ID{}}
}

// has reports whether the proxy has agreed to a workload.
func (p *proxy) has(w Workload) bool {
	id, ok := p.told[w.UID]
	return ok && (w.NS == nil || id == w.NS.ID())
}

// hello reads the first packet.
func (p *proxy) hello() error {
	if err := p.conn.SetReadDeadline(time.Now().Add(p.within)); err != nil {
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
		if !p.asked.CompareAndSwap(true, false) {
			return errors.New("it answers what it was not asked")
		}
		p.answers <- r // there is room: one question, one answer
	}
}

func (p *proxy) add(w Workload) error {
	p.told[w.UID] = netns.ID{} // whatever it answers, or fails to, it may have taken it
	err := p.ask(&zds.WorkloadRequest{Payload: &zds.WorkloadRequest_Add{Add: &zds.AddWorkload{
		Uid: w.UID, WorkloadInfo: &zds.WorkloadInfo{Name: w.Name, Namespace: w.Namespace, ServiceAccount: w.ServiceAccount},
	}}}, unix.UnixRights(int(w.NS.File().Fd())))
	if err == nil {
		p.told[w.UID] = w.NS.ID()
	}
	return err
}

// keep tells the proxy not to drop a workload that it has.
func (p *proxy) keep(w Workload) error {
	p.told[w.UID] = netns.ID{}
	return p.ask(&zds.WorkloadRequest{Payload: &zds.WorkloadRequest_Keep{Keep: &zds.KeepWorkload{Uid: w.UID}}}, nil)
}

// del takes a workload from the proxy, if it may have it.
func (p *proxy) del(uid string) error {
	p.turn.Lock()
	defer p.turn.Unlock()
	if _, ok := p.told[uid]; !ok {
		return nil
	}
	delete(p.told, uid)
	return p.ask(&zds.WorkloadRequest{Payload: &zds.WorkloadRequest_Del{Del: &zds.DelWorkload{Uid: uid}}}, nil)
}

// ask sends a request and waits for its answer. A proxy that does not answer in time is cut off.
func (p *proxy) ask(req *zds.WorkloadRequest, rights []byte) error {
	b, err := proto.Marshal(req)
	if err != nil {
		return err
	}
	if err := p.conn.SetWriteDeadline(time.Now().Add(p.within)); err != nil {
		return err
	}
	p.asked.Store(true)
	if _, _, err := p.conn.WriteMsgUnix(b, rights, nil); err != nil {
		p.conn.Close() // half asked, it cannot be asked again
		return err
	}
	t := time.NewTimer(p.within)
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
