package demo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// policyMax is how long a policy may take from being applied to being enforced.
const policyMax = 10 * time.Second

// served counts the requests that an application's own log tells of.
func (w *Walk) served(ctx context.Context, app string) (int, error) {
	pods, err := w.API.List(ctx, kindOf("pods"), "default", "app="+app)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, p := range pods {
		text, err := w.log(ctx, "default", p.GetName())
		if err != nil {
			return 0, err
		}
		for line := range strings.Lines(text) {
			if strings.Contains(line, "msg=request") && !strings.Contains(line, "path=/health") {
				n++
			}
		}
	}
	return n, nil
}

// refused tells curl's exit statuses of a connection that the other end cut. When the reset is seen depends on what curl
// was at: connecting (7), sending (55), receiving (56), or waiting for an answer (52).
func refused(code int) bool { return code == 7 || code == 52 || code == 55 || code == 56 }

// refusedWithin waits until a pod's request is refused on the connection, and tells how long that took.
func (w *Walk) refusedWithin(ctx context.Context, limit time.Duration, namespace, from, url string) (time.Duration, error) {
	start := time.Now()
	err := eventually(ctx, limit, func() error {
		out, code, err := w.curl(ctx, namespace, from, url)
		switch {
		case err != nil:
			return err
		case code == 0:
			return fmt.Errorf("%s still reaches %s after %v", from, url, limit)
		case !refused(code):
			return fmt.Errorf("curl in %s ended with %d, want a refused connection: %s", from, code, out)
		}
		return nil
	})
	return time.Since(start), err
}

// authorize is the first half of step f.
func (w *Walk) authorize(ctx context.Context) error {
	if err := w.apply(ctx, "default", "bookinfo/policy/productpage-viewer.yaml"); err != nil {
		return err
	}
	took, err := w.refusedWithin(ctx, policyMax, "default", "notsleep", shop)
	if err != nil {
		return err
	}
	w.ui.done("enforced %d ms after it was applied", took.Milliseconds())
	before, err := w.served(ctx, "productpage")
	if err != nil {
		return err
	}
	w.ui.command("ambit local exec deploy/notsleep -- curl -s " + shop)
	for range 5 {
		out, code, err := w.curl(ctx, "default", "notsleep", shop)
		if err != nil {
			return err
		}
		if !refused(code) {
			return fmt.Errorf("curl in notsleep ended with %d, want a refused connection: %s", code, out)
		}
	}
	after, err := w.served(ctx, "productpage")
	if err != nil {
		return err
	}
	if after != before {
		return fmt.Errorf("%d refused requests reached productpage", after-before)
	}
	w.ui.proof("refused 5 of 5 times; productpage's own log shows 0 requests of them")
	var line string
	err = eventually(ctx, 5*time.Second, func() error {
		line, err = w.ztunnelLine(ctx, "default/productpage-viewer", "notsleep")
		return err
	})
	if err != nil {
		return err
	}
	w.ui.proof(line)
	if err := w.explained(ctx, "deploy/notsleep", "productpage:9080", "result       DENIED"); err != nil {
		return err
	}
	if _, err := w.page(ctx, "sleep"); err != nil {
		return fmt.Errorf("sleep must still be let in: %w", err)
	}
	w.ui.done("sleep is still let in")
	return nil
}

// strict is the second half of step f. It asks details, whose only rule is then the demand for mutual TLS.
func (w *Walk) strict(ctx context.Context) error {
	const outside, url = "outside", "http://details.default:9080/details/0"
	w.ui.command("ambit local apply -f - <<< '{apiVersion: v1, kind: Namespace, metadata: {name: outside}}'")
	if _, err := w.API.Apply(ctx, "demo", outside, false, []byte("{apiVersion: v1, kind: Namespace, metadata: {name: outside}}")); err != nil {
		return err
	}
	if err := w.apply(ctx, outside, "sleep/sleep.yaml"); err != nil {
		return err
	}
	w.ui.wait("Waiting for the pod")
	err := Ready(ctx, w.API, outside, "Deployment", "sleep")
	w.ui.wait("")
	if err != nil {
		return err
	}
	out, code, err := w.curl(ctx, outside, "sleep", url)
	if err == nil && (code != 0 || !strings.Contains(out, "Shakespeare")) {
		err = fmt.Errorf("before STRICT a pod outside must be answered, but curl ended with %d: %s", code, out)
	}
	if err != nil {
		return err
	}
	w.ui.done("permissive: a pod outside the mesh is answered")
	if err := w.apply(ctx, "default", "bookinfo/policy/strict.yaml"); err != nil {
		return err
	}
	took, err := w.refusedWithin(ctx, policyMax, outside, "sleep", url)
	if err != nil {
		return err
	}
	w.ui.done("strict: refused, %d ms after the policy was applied", took.Milliseconds())
	before, err := w.served(ctx, "details")
	if err != nil {
		return err
	}
	if _, code, err = w.curl(ctx, outside, "sleep", url); err != nil || !refused(code) {
		return errors.Join(err, fmt.Errorf("curl outside ended with %d", code))
	}
	after, err := w.served(ctx, "details")
	if err != nil {
		return err
	}
	if after != before {
		return fmt.Errorf("%d refused requests reached details", after-before)
	}
	if out, code, err = w.curl(ctx, "default", "sleep", "http://details:9080/details/0"); err != nil || code != 0 {
		return errors.Join(err, fmt.Errorf("a pod of the mesh must still be answered, but curl ended with %d: %s", code, out))
	}
	w.ui.done("a pod of the mesh is still answered; 0 bytes of the refused reached details")
	return nil
}
