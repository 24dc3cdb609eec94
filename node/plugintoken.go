package node

import (
	"context"
	"time"

	"github.com/ambit-mesh/ambit/lifecycle"
	"github.com/ambit-mesh/ambit/node/internal/plugintoken"
	"github.com/ambit-mesh/ambit/node/internal/podwatch"
)

// pluginTokenLife is what a token of the plugin's is asked for: an agent that is away for half of it keeps no pod outside the mesh
// from starting.
const pluginTokenLife = 24 * time.Hour

// newPluginToken is what keeps the plugin's own token, nil if it has no account.
func newPluginToken(c Config, api *podwatch.Client) *plugintoken.Keeper {
	if c.PluginAccount == "" {
		return nil
	}
	return plugintoken.New(plugintoken.Config{
		Namespace: c.PodNamespace, Account: c.PluginAccount, Refused: podwatch.Refused, Log: c.Log,
		Request: func(ctx context.Context) (string, time.Time, error) {
			return api.TokenOf(ctx, c.PodNamespace, c.PluginAccount, pluginTokenLife)
		},
		Try: func(ctx context.Context, token string) error { return api.Serves(ctx, token, c.PodNamespace) },
	})
}

// startPluginToken goes on with the token that an earlier agent left, before anything writes another.
func (n *Node) startPluginToken(g *lifecycle.Group) {
	if n.token == nil {
		n.conf.Log.Info("the plugin has no service account of its own and gets the agent's token, which ends with the agent's pod")
		return
	}
	n.token.Reuse(n.host.Left())
	g.Go("plugin's token", n.token.Run)
}

// pluginTokenEnds is for the metrics.
func (n *Node) pluginTokenEnds() float64 {
	if n.token == nil || n.token.Token() == "" {
		return 0
	}
	return float64(n.token.Ends().Unix())
}
