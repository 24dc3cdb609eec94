package gateway

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// HB-23: the program that H2SPEC names (github.com/summerwind/h2spec) against the gateway's HTTP/2, in the clear and in TLS.
func TestHB23H2spec(t *testing.T) {
	program := os.Getenv("H2SPEC")
	if program == "" {
		t.Skip("H2SPEC does not name the program h2spec")
	}
	at, _ := web(t, func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, 64)) }) //nolint:errcheck // read by h2spec
	a := newAuthority(t)
	b := start(t, nil)
	b.apply(backend("web", at), a.secret("any", 1, "any.test"), route("*", to("web")), listener(8080, "*"), https("l1", "*", "any"), inSet(route("*", to("web")), "https.l1"))
	for port, extra := range map[uint16][]string{8080: nil, 8443: {"--tls", "--insecure"}} {
		host, number, err := net.SplitHostPort(b.at(port))
		if err != nil {
			t.Fatal(err)
		}
		// It exits with 1 when a case fails; which ones is read from what it says.
		out, err := exec.CommandContext(t.Context(), program, append(extra, "-h", host, "-p", number, "--timeout", "2")...).CombinedOutput()
		_, failures, _ := strings.Cut(string(out), "Failures:")
		if !strings.Contains(string(out), "145 tests") {
			t.Fatalf("port %d: %v\n%s", port, err, out)
		}
		for line := range strings.Lines(failures) {
			_, name, failed := strings.Cut(line, "× ")
			if failed && port == 8080 && strings.Contains(name, "invalid connection preface") {
				continue // in the clear it is a request of HTTP/1 that is none, and answered so
			}
			if failed && !waived(strings.TrimSpace(name[2:])) {
				t.Errorf("port %d: %s\n%s", port, name, failures)
			}
		}
	}
}

// waived are the cases in which we differ, and why.
func waived(name string) bool {
	switch strings.TrimSpace(name) {
	case "Sends multiple values of SETTINGS_INITIAL_WINDOW_SIZE":
		return true // the same setting twice in a frame is refused: no client does that, and the order of effects is an attack's
	case "Sends a HEADERS frame that contains the connection-specific header field",
		`Sends a HEADERS frame that contains the TE header field with any value other than "trailers"`:
		return true // answered with 400 first, which RFC 9113, 8.1.1 allows and which says more than a reset
	}
	return false
}
