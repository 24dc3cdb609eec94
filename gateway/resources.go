package gateway

import (
	"errors"
	"fmt"

	"github.com/ambit-mesh/ambit/api/l7"
	"github.com/ambit-mesh/ambit/gateway/internal/table"
	"github.com/ambit-mesh/ambit/mesh"
	"github.com/ambit-mesh/ambit/xds/client"
)

// Handlers take in the resources that a gateway subscribes to, in the order in which they are best received. What is
// refused leaves what was there before in force.
func (g *Gateway) Handlers() []client.Handler {
	return []client.Handler{
		client.Handle(mesh.TypeSecret, false, g.takeSecrets),
		client.Handle(mesh.TypeBackend, false, g.takeBackends),
		client.Handle(mesh.TypeRoute, false, g.takeRoutes),
		client.Handle(mesh.TypeListener, false, g.takeListeners),
	}
}

func (g *Gateway) takeSecrets(items []client.Item[*l7.Secret], removes []string) error {
	return take(g, mesh.TypeSecret, items, removes, (*table.Builder).RemoveSecret, func(b *table.Builder, s *l7.Secret) error {
		b.SetSecret(s)
		return nil
	})
}

func (g *Gateway) takeBackends(items []client.Item[*l7.Backend], removes []string) error {
	return take(g, mesh.TypeBackend, items, removes, (*table.Builder).RemoveBackend, func(b *table.Builder, x *l7.Backend) error {
		b.SetBackend(x)
		return nil
	})
}

func (g *Gateway) takeRoutes(items []client.Item[*l7.Route], removes []string) error {
	return take(g, mesh.TypeRoute, items, removes, (*table.Builder).RemoveRoute, (*table.Builder).SetRoute)
}

func (g *Gateway) takeListeners(items []client.Item[*l7.Listener], removes []string) error {
	return take(g, mesh.TypeListener, items, removes, (*table.Builder).RemoveListener, (*table.Builder).SetListener)
}

// take takes a batch of one type into force and says what of it was refused.
func take[M interface{ GetName() string }](g *Gateway, typeURL string, items []client.Item[M], removes []string,
	remove func(*table.Builder, string), set func(*table.Builder, M) error,
) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	var refused []error
	for _, i := range items {
		err := fmt.Errorf("%s calls itself %s", i.Name, i.Body.GetName())
		if i.Body.GetName() == i.Name {
			err = set(g.builder, i.Body)
		}
		if err != nil {
			g.c.Log.Warn("resource refused", "type", typeURL, "error", err)
			refused = append(refused, err)
		}
	}
	for _, name := range removes {
		remove(g.builder, name)
	}
	t := g.builder.Build()
	g.upstreams.Update(t)
	g.current.Store(t)
	select {
	case g.changed <- struct{}{}:
	default:
	}
	if done := g.synced[typeURL]; done != nil {
		done()
	}
	return errors.Join(refused...)
}
