package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/local/client"
)

// Watch tells of every change of a namespace's pods, beginning with all that there are, until f says that it is enough.
func (l *Lab) Watch(ctx context.Context, namespace string, f func(pod *corev1.Pod, at time.Time) (enough bool)) error {
	web := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(l.dir, "c", client.APISocket))
	}, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://cluster/api/v1/namespaces/"+namespace+"/pods?watch=true", nil)
	if err != nil {
		return err
	}
	resp, err := web.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for in := json.NewDecoder(resp.Body); ; {
		var e struct {
			Type   string
			Object corev1.Pod
		}
		if err := in.Decode(&e); err != nil {
			return fmt.Errorf("watch pods of %s: %w", namespace, err)
		}
		if f(&e.Object, time.Now()) {
			return nil
		}
	}
}
