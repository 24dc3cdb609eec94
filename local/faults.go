package local

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/local/internal/store"
)

// firstContainer is the path's word for a pod's first container.
const firstContainer = "-"

// plug pulls a node's cable out or puts it in again.
func (c *inside) plug(w http.ResponseWriter, r *http.Request) {
	name, cable := r.PathValue("node"), r.PathValue("cable")
	if cable != "in" && cable != "out" {
		http.Error(w, fmt.Sprintf("a cable is in or out, not %q", cable), http.StatusBadRequest)
		return
	}
	node, ok := c.net.Node(name)
	if !ok {
		http.Error(w, fmt.Sprintf("nodes %q not found", name), http.StatusNotFound)
		return
	}
	if err := node.Plug(cable == "in"); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	c.log.Info("cable of node", "node", name, "cable", cable)
}

// signal sends a signal to the first process of a container.
func (c *inside) signal(w http.ResponseWriter, r *http.Request) {
	name := "SIG" + strings.TrimPrefix(strings.ToUpper(r.PathValue("signal")), "SIG")
	sig := unix.SignalNum(name)
	if sig == 0 {
		http.Error(w, fmt.Sprintf("there is no signal %q", r.PathValue("signal")), http.StatusBadRequest)
		return
	}
	pod, err := store.Get[*corev1.Pod](c.store, r.PathValue("namespace"), r.PathValue("pod"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	k, err := c.kubeletOf(pod)
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	container := r.PathValue("container")
	if container == firstContainer {
		container = pod.Spec.Containers[0].Name
	}
	running, err := k.Container(pod.Namespace, pod.Name, container)
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	if err := syscall.Kill(running.PID(), sig); err != nil {
		http.Error(w, fmt.Sprintf("send %s to process %d: %v", name, running.PID(), err), http.StatusInternalServerError)
		return
	}
	c.log.Info("signal sent", "signal", name, "pod", pod.Namespace+"/"+pod.Name, "container", container)
}
