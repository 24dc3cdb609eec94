package local

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/linux/netns"
)

// dialTime bounds how long a pod may take to accept a connection.
const dialTime = 10 * time.Second

// podDialer turns a request into a connection to a port of a pod's loopback. open gives the pod's network namespace.
func podDialer(open func(namespace, pod string) (*netns.Namespace, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		port, err := strconv.ParseUint(r.PathValue("port"), 10, 16)
		if err != nil || port == 0 {
			http.Error(w, fmt.Sprintf("%q is no port", r.PathValue("port")), http.StatusBadRequest)
			return
		}
		ns, err := open(r.PathValue("namespace"), r.PathValue("pod"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		defer ns.Close()
		ctx, cancel := context.WithTimeout(r.Context(), dialTime)
		there, err := dialLoopback(ctx, ns, uint16(port))
		cancel()
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer there.Close()
		conn, early, err := http.NewResponseController(w).Hijack()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Time{}); err != nil {
			return
		}
		if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"); err != nil {
			return // the client left
		}
		join(conn, early.Reader, there)
	}
}

// join moves bytes both ways until both directions have ended. What one side has ended, the other is told.
func join(a net.Conn, fromA io.Reader, b net.Conn) {
	var wg sync.WaitGroup
	move := func(to net.Conn, from io.Reader) {
		_, err := io.Copy(to, from)
		half, ok := to.(interface{ CloseWrite() error })
		if err != nil || !ok || half.CloseWrite() != nil {
			a.Close() // broken, not ended: both must see it
			b.Close()
		}
	}
	wg.Go(func() { move(b, fromA) })
	wg.Go(func() { move(a, b) })
	wg.Wait()
}
