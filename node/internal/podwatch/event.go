package podwatch

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/ambit-mesh/ambit/node/internal/objects"
)

// Event is what users see of a pod with kubectl describe.
type Event struct {
	Warning bool
	Reason  string // one word
	Message string
}

// maxMessage is what the API takes.
const maxMessage = 1024

// Tell puts an event to a pod.
func (c *Client) Tell(ctx context.Context, p objects.Pod, node string, e Event) error {
	kind := "Normal"
	if e.Warning {
		kind = "Warning"
	}
	message := e.Message
	if len(message) > maxMessage {
		message = message[:maxMessage-3] + "..."
	}
	now := time.Now().UTC().Format(time.RFC3339)
	b, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Event", "type": kind, "reason": e.Reason, "message": message, "count": 1,
		"metadata":       map[string]any{"generateName": "ambit-node-", "namespace": p.Namespace},
		"involvedObject": map[string]any{"apiVersion": "v1", "kind": "Pod", "namespace": p.Namespace, "name": p.Name, "uid": p.UID},
		"source":         map[string]any{"component": "ambit-node", "host": node},
		"firstTimestamp": now, "lastTimestamp": now, "reportingComponent": "ambit-node", "reportingInstance": node,
	})
	if err != nil {
		return fmt.Errorf("event of pod %s: %w", p.Key, err)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	body, err := c.do(ctx, http.MethodPost, "/api/v1/namespaces/"+url.PathEscape(p.Namespace)+"/events", nil, b)
	if err != nil {
		return fmt.Errorf("event of pod %s: %w", p.Key, err)
	}
	return finish(body)
}
