// Package inpod learns from the node agent which pods are this proxy's, and starts and stops a proxy in each.
package inpod

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ambit-mesh/ambit/api/zds"
	"github.com/ambit-mesh/ambit/linux/netns"
)

// Pod is one captured pod and its network namespace.
type Pod struct {
	UID, Name, Namespace, ServiceAccount string
	NS                                   *netns.Namespace
}

// Config of a Client.
type Config struct {
	// Socket is where the agent listens. Default mesh.ZDSSocket.
	Socket string
	// Start opens the proxy of a pod and returns once its listeners are open; stop drains and ends it. An error is
	// reported to the agent, which tries again. The namespace stays open until stop returned.
	Start func(ctx context.Context, p Pod) (stop func(), err error)
	// Synced is called once, after the first full list of pods.
	Synced func()
	Log    *slog.Logger
}

// Retry of the connection to the agent, which may be restarting. New pods of the mesh wait for it, and trying a socket
// of this machine costs next to nothing: often, but said only now and then.
const (
	retryMin = 10 * time.Millisecond
	retryMax = 200 * time.Millisecond
	sayEvery = 10 * time.Second
)

// Client follows the agent.
type Client struct {
	conf Config
	once sync.Once

	mu   sync.Mutex // guards below
	pods map[string]*running
	wg   sync.WaitGroup // of stopping pods
}

// running is a pod whose proxy runs.
type running struct {
	Pod
	stop func()
}

// New makes a client; Run connects it.
func New(c Config) *Client { return &Client{conf: c, pods: map[string]*running{}} }

// Pods lists the pods whose proxies run.
func (c *Client) Pods() []Pod {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]Pod, 0, len(c.pods))
	for _, r := range c.pods {
		all = append(all, r.Pod)
	}
	return all
}

// Run follows the agent until ctx ends, then stops every pod's proxy and waits for them. An agent that is away costs
// nothing: the proxies that run go on.
func (c *Client) Run(ctx context.Context) error {
	defer c.stopAll()
	retry := retryMin
	var said time.Time
	for {
		began := time.Now()
		err := c.follow(ctx)
		if ctx.Err() != nil {
			return nil
		}
		lasted := time.Since(began) > retryMax
		if lasted {
			retry = retryMin
		}
		if lasted || time.Since(said) > sayEvery {
			c.conf.Log.Warn("no connection to the node agent, trying again", "socket", c.conf.Socket, "error", err)
			said = time.Now()
		}
		t := time.NewTimer(retry)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
		retry = min(retry*2, retryMax)
	}
}

// follow runs one connection.
func (c *Client) follow(ctx context.Context) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unixpacket", c.conf.Socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
	defer stop()
	u := conn.(*net.UnixConn)
	if err := send(u, &zds.ZdsHello{Version: zds.Version_V1}); err != nil {
		return err
	}
	named := map[string]bool{} // by this connection's snapshot; nil after it
	for {
		req, fd, err := receive(u)
		if err != nil {
			return err
		}
		why := ""
		if err := c.handle(ctx, req, fd, &named); err != nil {
			why = err.Error()
			c.conf.Log.Warn("pod not taken", "error", err)
		}
		if err := send(u, &zds.WorkloadResponse{Payload: &zds.WorkloadResponse_Ack{Ack: &zds.Ack{Error: why}}}); err != nil {
			return err
		}
	}
}

func (c *Client) handle(ctx context.Context, req *zds.WorkloadRequest, ns *netns.Namespace, named *map[string]bool) error {
	if add := req.GetAdd(); add == nil && ns != nil {
		ns.Close()
	}
	switch p := req.GetPayload().(type) {
	case *zds.WorkloadRequest_Add:
		if ns == nil {
			return fmt.Errorf("pod %s came without its namespace", p.Add.GetUid())
		}
		i := p.Add.GetWorkloadInfo()
		if *named != nil {
			(*named)[p.Add.GetUid()] = true
		}
		return c.add(ctx, Pod{UID: p.Add.GetUid(), Name: i.GetName(), Namespace: i.GetNamespace(), ServiceAccount: i.GetServiceAccount(), NS: ns})
	case *zds.WorkloadRequest_Keep:
		if *named != nil {
			(*named)[p.Keep.GetUid()] = true
		}
		return nil
	case *zds.WorkloadRequest_Del:
		c.remove(p.Del.GetUid())
		return nil
	case *zds.WorkloadRequest_SnapshotSent:
		if *named != nil {
			c.keepOnly(*named)
			*named = nil
		}
		c.once.Do(c.conf.Synced)
		return nil
	}
	return errors.New("request is not understood")
}

// add starts a pod's proxy. One that runs in the same namespace stays; in another, it is replaced.
func (c *Client) add(ctx context.Context, p Pod) error {
	c.mu.Lock()
	old, ok := c.pods[p.UID]
	c.mu.Unlock()
	if ok && old.NS.ID() == p.NS.ID() {
		p.NS.Close()
		return nil
	}
	if ok {
		c.remove(p.UID)
	}
	stop, err := c.conf.Start(ctx, p)
	if err != nil {
		p.NS.Close()
		return fmt.Errorf("proxy of pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	c.mu.Lock()
	c.pods[p.UID] = &running{p, stop}
	c.mu.Unlock()
	c.conf.Log.Info("pod taken", "pod", p.Namespace+"/"+p.Name, "uid", p.UID)
	return nil
}

// remove stops a pod's proxy; its drain does not hold up the agent.
func (c *Client) remove(uid string) {
	c.mu.Lock()
	r, ok := c.pods[uid]
	delete(c.pods, uid)
	c.mu.Unlock()
	if !ok {
		return
	}
	c.conf.Log.Info("pod left", "pod", r.Namespace+"/"+r.Name, "uid", uid)
	c.wg.Go(func() {
		r.stop()
		r.NS.Close()
	})
}

func (c *Client) keepOnly(named map[string]bool) {
	for _, p := range c.Pods() {
		if !named[p.UID] {
			c.remove(p.UID)
		}
	}
}

func (c *Client) stopAll() {
	for _, p := range c.Pods() {
		c.remove(p.UID)
	}
	c.wg.Wait()
}

// sendTimeout is how long the agent may take to read an answer.
const sendTimeout = 5 * time.Second

func send(u *net.UnixConn, m proto.Message) error {
	b, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	if err := u.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return err
	}
	_, err = u.Write(b)
	return err
}
