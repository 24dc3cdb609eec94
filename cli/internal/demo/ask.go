package demo

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// tell shows a command line of ambit and what it prints, and wants its exit status and each of the words in its output.
func (w *Walk) tell(ctx context.Context, status int, args []string, want ...string) error {
	out, code := w.Ambit(ctx, "", args...)
	if code != status || !hasAll(out, want) {
		return fmt.Errorf("ambit %s ended with %d, and should have said %q:\n%s", strings.Join(args, " "), code, want, out)
	}
	w.ui.command("ambit " + strings.Join(args, " "))
	w.ui.proof(out)
	return nil
}

// known shows what the ztunnels know of the application's pods, once that is that all of them are in the mesh.
func (w *Walk) known(ctx context.Context) error {
	args := []string{"ztunnel-config", "workload", "--workload-namespace", "default"}
	err := eventually(ctx, 10*time.Second, func() error {
		out, code := w.Ambit(ctx, "", args...)
		if in := strings.Count(out, " HBONE"); code != 0 || in < 8 {
			return fmt.Errorf("ztunnel knows of %d pods in the mesh, want 8:\n%s", in, out)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return w.tell(ctx, 0, args, "HBONE")
}

// explained shows why a connection fares as it does.
func (w *Walk) explained(ctx context.Context, from, to string, want ...string) error {
	return w.tell(ctx, 0, []string{"explain", from, to}, want...)
}

// byHTTP is a policy that needs a waypoint, which this mesh has not yet: ztunnel sees no methods.
const byHTTP = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: read-only}
spec:
  selector: {matchLabels: {app: reviews}}
  rules: [{to: [{operation: {methods: [GET]}}]}]
`

// mistake is the last step: what analyze says of a policy that nobody could enforce as it is meant.
func (w *Walk) mistake(ctx context.Context) error {
	const found = 79
	args := []string{"analyze", "--output-threshold", "Error", "-"}
	out, code := w.Ambit(ctx, byHTTP, args...)
	if code != found || !hasAll(out, []string{"Error [AMB0001]", "methods"}) {
		return fmt.Errorf("analyze ended with %d and said\n%s", code, out)
	}
	w.ui.command("ambit " + strings.Join(args, " ") + " << .")
	w.ui.proof(byHTTP + ".")
	w.ui.proof(out)
	return nil
}
