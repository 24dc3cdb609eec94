package local

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/local/client"
	"github.com/ambit-mesh/ambit/local/internal/network"
	"github.com/ambit-mesh/ambit/local/internal/store"
)

// machine answers what only this kind of cluster can be asked, beside the Kubernetes API.
func (c *inside) machine(rest http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", rest)
	mux.HandleFunc("GET /ambit/v1/ingress", func(w http.ResponseWriter, _ *http.Request) {
		c.answer(w, struct{ URL string }{c.ingressURL()})
	})
	mux.HandleFunc("GET /ambit/v1/processes", func(w http.ResponseWriter, _ *http.Request) {
		all, err := c.processes()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		c.answer(w, all)
	})
	mux.HandleFunc("GET /ambit/v1/capture", c.capture)
	mux.HandleFunc("GET /api/v1/namespaces/{namespace}/pods/{pod}/exec", c.execute)
	mux.HandleFunc("POST /ambit/v1/dial/{namespace}/{pod}/{port}", podDialer(c.podNamespace))
	mux.HandleFunc("POST /ambit/v1/nodes/{node}/{cable}", c.plug)
	mux.HandleFunc("POST /ambit/v1/pods/{namespace}/{pod}/{container}/{signal}", c.signal)
	mux.HandleFunc("/api/v1/namespaces/{namespace}/pods/{pod}/proxy/{path...}", podProxy(c.podNamespace))
	return mux
}

func (c *inside) answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		c.log.Debug("answer not sent", "error", err)
	}
}

// capture streams the TCP segments on the bridge, a JSON line each, until the client leaves.
func (c *inside) capture(w http.ResponseWriter, r *http.Request) {
	flow, ok := w.(http.Flusher)
	if !ok {
		http.Error(w, "this connection cannot stream", http.StatusInternalServerError)
		return
	}
	out := json.NewEncoder(w)
	frames, err := network.Capture(r.Context(), c.net)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusOK)
	flow.Flush()
	for f := range frames {
		if len(f.Payload) == 0 {
			continue
		}
		if err := out.Encode(client.Segment{From: f.From, To: f.To, Payload: f.Payload}); err != nil {
			return // the client left
		}
		flow.Flush()
	}
}

// processes lists each container's memory, all of its processes together, and the cluster's own.
func (c *inside) processes() ([]client.Process, error) {
	spaces, err := memoryBySpace()
	if err != nil {
		return nil, err
	}
	self := memory{}
	if self.add(os.Getpid()) != nil {
		self = memory{}
	}
	all := []client.Process{{PID: os.Getpid(), Container: "ambit", RSS: self.rss, PSS: self.pss}}
	for _, p := range store.List[*corev1.Pod](c.store, "") {
		k, err := c.kubeletOf(p)
		if err != nil {
			continue // on no node, so it has no process
		}
		for _, ct := range p.Spec.Containers {
			running, err := k.Container(p.Namespace, p.Name, ct.Name)
			if err != nil {
				continue // not running
			}
			space, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid_for_children", running.PID()))
			if err != nil {
				continue // ended meanwhile
			}
			m := spaces[space]
			all = append(all, client.Process{PID: running.PID(), Pod: p.Namespace + "/" + p.Name, Container: ct.Name, RSS: m.rss, PSS: m.pss})
		}
	}
	return all, nil
}

// memory is in bytes.
type memory struct{ rss, pss int64 }

// memoryBySpace adds up the processes of each PID namespace: a container's.
func memoryBySpace() (map[string]memory, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	all := map[string]memory{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		space, err := os.Readlink(filepath.Join("/proc", e.Name(), "ns/pid"))
		if err != nil {
			continue // ended meanwhile
		}
		m := all[space]
		if err := m.add(pid); err != nil {
			continue // ended meanwhile
		}
		all[space] = m
	}
	return all, nil
}

func (m *memory) add(pid int) error {
	for file, fields := range map[string]map[string]*int64{
		"status":       {"VmRSS:": &m.rss},
		"smaps_rollup": {"Pss:": &m.pss},
	} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/%s", pid, file))
		if err != nil {
			return err
		}
		for in := bufio.NewScanner(f); in.Scan(); {
			words := strings.Fields(in.Text())
			if len(words) < 2 {
				continue
			}
			if to, ok := fields[words[0]]; ok {
				kib, err := strconv.ParseInt(words[1], 10, 64)
				if err == nil {
					*to += kib << 10
				}
			}
		}
		f.Close()
	}
	return nil
}
