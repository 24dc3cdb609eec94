package upstream

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/ambit-mesh/ambit/api/l7"
	"github.com/ambit-mesh/ambit/gateway/internal/access"
)

// Call is one connection that is wanted to a backend.
type Call struct {
	Backend string
	Matched *l7.Backend // as the table had it that chose the backend; nil if it had none
	From    net.Addr
	Record  *access.Record // learns where the connection goes, or why it does not
}

// maxConnects is how many endpoints are tried for one connection.
const maxConnects = 3

// Connect opens a connection for bytes. leave is to be called when it has ended.
func (u *Upstreams) Connect(ctx context.Context, call Call) (net.Conn, func(), error) {
	rec := call.Record
	c := u.cluster(call.Backend, call.Matched)
	if c == nil || c.GetUnknown() {
		if c != nil {
			rec.Backend = c.Backend
		}
		rec.Flag(access.NoCluster)
		return nil, nil, errors.New("there is no such service, port or subset")
	}
	rec.Backend = c.Backend
	release, err := c.state.claim(c.GetLimits())
	if err != nil {
		rec.Flag(access.UpstreamOverflow)
		return nil, nil, err
	}
	how := &choice{}
	if host, _, err := net.SplitHostPort(call.From.String()); err == nil && c.GetBalancer().GetHash().GetSourceIp() {
		how.key, how.hashed = xxhash.Sum64String(host), true
	}
	for range maxConnects {
		e, ok := c.pick(how, time.Now())
		if !ok {
			rec.Flag(access.NoHealthyUpstream)
			err = errors.New("no healthy upstream")
			break
		}
		rec.Endpoint, rec.UpstreamHost = e.Endpoint, e.lane.target.Addr
		var conn net.Conn
		if conn, err = e.lane.connect(ctx); err == nil {
			rec.UpstreamLocal = conn.LocalAddr().String()
			c.observe(e, good, time.Now())
			out := e.lane.enter()
			return conn, func() { out(); release() }, nil
		}
		if ctx.Err() != nil {
			break
		}
		c.observe(e, unreached, time.Now())
	}
	release()
	if len(rec.Flags) == 0 {
		rec.Flag(access.UpstreamConnect)
	}
	return nil, nil, err
}
