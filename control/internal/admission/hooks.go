package admission

import (
	"bytes"
	"encoding/json"
	"fmt"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
)

// Configured is how an API server is told to ask.
type Configured = admissionregistrationv1.ValidatingWebhookConfiguration

// Mended tells what is to be changed of a configuration, as a JSON patch; nil for nothing. The roots are what the server
// must trust. Once it is known to reach us, what it cannot ask us about is refused. It is never the other way round: a
// server that cannot reach us any more goes on refusing, until a person says otherwise.
func Mended(c *Configured, roots string, reached bool) ([]byte, error) {
	var ops []operation
	for i, w := range c.Webhooks {
		at := fmt.Sprintf("/webhooks/%d", i)
		var here []operation
		if !bytes.Equal(w.ClientConfig.CABundle, []byte(roots)) {
			here = append(here, operation{"add", at + "/clientConfig/caBundle", []byte(roots)})
		}
		if reached && !refuses(w) {
			here = append(here, operation{"add", at + "/failurePolicy", admissionregistrationv1.Fail})
		}
		if len(here) > 0 {
			ops = append(append(ops, operation{"test", at + "/name", w.Name}), here...)
		}
	}
	if len(ops) == 0 {
		return nil, nil
	}
	data, err := json.Marshal(append([]operation{{"test", "/metadata/resourceVersion", c.ResourceVersion}}, ops...))
	if err != nil {
		return nil, fmt.Errorf("write what is to be changed of the webhook: %w", err)
	}
	return data, nil
}

// Refuses reports whether the server refuses what it cannot ask about, whichever webhook it is for.
func Refuses(c *Configured) bool {
	for _, w := range c.Webhooks {
		if !refuses(w) {
			return false
		}
	}
	return true
}

func refuses(w admissionregistrationv1.ValidatingWebhook) bool {
	return w.FailurePolicy == nil || *w.FailurePolicy == admissionregistrationv1.Fail
}

// operation is one of a JSON patch (RFC 6902). Bytes are written in base64, as in the object.
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}
