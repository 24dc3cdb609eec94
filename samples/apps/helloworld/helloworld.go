// Package helloworld tells which version and instance answered: GET /hello on port 5000.
package helloworld

import (
	"fmt"
	"net/http"
)

// Handler answers for one version and instance.
func Handler(version, instance string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /hello", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "Hello version: %s, instance: %s\n", version, instance)
	})
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "Helloworld is healthy")
	})
	return mux
}
