package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/local"
	"github.com/ambit-mesh/ambit/local/client"
)

func newPortForward(s *scope) *cobra.Command {
	return &cobra.Command{
		Use: "port-forward (POD | KIND/NAME) [LOCAL:]REMOTE...", Short: "Lead ports of this machine's loopback to a pod", Args: cobra.MinimumNArgs(2),
		Long: "Lead ports of 127.0.0.1 to a pod, until Ctrl-C. Of a service, REMOTE is its port, and one of its pods is chosen.\n" +
			":REMOTE takes any local port that is free.",
		Example: "  ambit local port-forward deploy/productpage-v1 9080\n  ambit local port-forward svc/httpbin 8000:8000\n  ambit local port-forward -n istio-system istiod-7d9c :15014",
		RunE: func(c *cobra.Command, args []string) error {
			pods, err := s.podsFor(c.Context(), args[:1], "")
			if err != nil {
				return err
			}
			var lanes []lane
			for _, text := range args[1:] {
				lane, err := s.lane(c.Context(), args[0], text, pods[0])
				if err != nil {
					return err
				}
				lanes = append(lanes, lane)
			}
			return s.forward(c.Context(), pods[0], lanes)
		},
	}
}

// lane is one pair of ports.
type lane struct{ local, remote int }

// lane reads [LOCAL:]REMOTE. Of a service, REMOTE is its port and becomes the pod's behind it.
func (s *scope) lane(ctx context.Context, of, text string, pod *corev1.Pod) (lane, error) {
	from, to, both := strings.Cut(text, ":")
	if !both {
		from, to = text, text
	}
	remote, err := s.remotePort(ctx, of, to, pod)
	if err != nil {
		return lane{}, err
	}
	if from == "" {
		return lane{0, remote}, nil
	}
	n, err := strconv.ParseUint(from, 10, 16)
	if err != nil && !both {
		return lane{remote, remote}, nil // a port's name
	}
	if err != nil {
		return lane{}, usage("%q: want [LOCAL:]REMOTE, such as 8080:80", text)
	}
	return lane{int(n), remote}, nil
}

func (s *scope) remotePort(ctx context.Context, of, word string, pod *corev1.Pod) (int, error) {
	if kind, name, ok := strings.Cut(of, "/"); ok {
		if k, ok := kinds.Find(kind); ok && k.Kind == "Service" && k.Group == "" {
			o, err := s.client().Get(ctx, k, s.namespace, name)
			if err != nil {
				return 0, err
			}
			svc := o.(*corev1.Service)
			for _, p := range svc.Spec.Ports {
				if word != strconv.Itoa(int(p.Port)) && word != p.Name {
					continue
				}
				switch {
				case p.TargetPort.IntValue() > 0:
					return p.TargetPort.IntValue(), nil
				case p.TargetPort.StrVal != "":
					return namedPort(pod, p.TargetPort.StrVal)
				}
				return int(p.Port), nil
			}
			return 0, fmt.Errorf("service %s has no port %s; it has %s", name, word, portsOf(svc))
		}
	}
	if n, err := strconv.ParseUint(word, 10, 16); err == nil && n > 0 {
		return int(n), nil
	}
	return namedPort(pod, word)
}

func namedPort(pod *corev1.Pod, name string) (int, error) {
	for _, c := range pod.Spec.Containers {
		for _, p := range c.Ports {
			if p.Name == name {
				return int(p.ContainerPort), nil
			}
		}
	}
	return 0, fmt.Errorf("pod %s has no port called %q", pod.Name, name)
}

// forward serves the lanes until ctx ends. It listens on the loopback alone: whoever reaches the port reaches the pod.
func (s *scope) forward(ctx context.Context, pod *corev1.Pod, lanes []lane) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, l := range lanes {
		ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(l.local)))
		if err != nil {
			cancel()
			return fmt.Errorf("%w; name another local port, or none as in :%d", err, l.remote)
		}
		context.AfterFunc(ctx, func() { ln.Close() })
		fmt.Fprintf(s.env.Out, "Forwarding from %s -> %d\n", ln.Addr(), l.remote)
		wg.Go(func() { s.accept(ctx, ln, pod, l.remote, &wg) })
	}
	<-ctx.Done()
	return nil
}

func (s *scope) accept(ctx context.Context, ln net.Listener, pod *corev1.Pod, port int, wg *sync.WaitGroup) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return // closed with ctx
		}
		fmt.Fprintf(s.env.Out, "Handling connection for %d\n", ln.Addr().(*net.TCPAddr).Port)
		wg.Go(func() {
			if err := s.carry(ctx, c.(*net.TCPConn), pod, port); err != nil && ctx.Err() == nil {
				fmt.Fprintf(s.env.Err, "Error: %v\n", err)
			}
		})
	}
}

// carry moves the bytes of one connection.
func (s *scope) carry(ctx context.Context, here *net.TCPConn, pod *corev1.Pod, port int) error {
	defer here.Close()
	there, err := s.client().DialPod(ctx, pod.Namespace, pod.Name, port)
	if err != nil {
		return errors.Join(err, here.SetLinger(0)) // a reset: nothing was there
	}
	defer there.Close()
	stop := context.AfterFunc(ctx, func() {
		here.Close()
		there.Close()
	})
	defer stop()
	var wg sync.WaitGroup
	move := func(to client.Stream, from io.Reader) {
		if _, err := io.Copy(to, from); err != nil || to.CloseWrite() != nil {
			here.Close()
			there.Close()
		}
	}
	wg.Go(func() { move(there, here) })
	wg.Go(func() { move(here, there) })
	wg.Wait()
	return nil
}

func newProxy(s *scope) *cobra.Command {
	g := local.Gate{}
	c := &cobra.Command{
		Use: "proxy", Short: "Let kubectl and its like use the cluster, until Ctrl-C", Args: cobra.NoArgs,
		Long: "Serve the cluster's API on 127.0.0.1 over TLS, to those who have the token of the kubeconfig that this writes, until Ctrl-C.\n" +
			"port-forward is `ambit local`'s: kubectl's goes another way.",
		Example: "  ambit local proxy &\n  KUBECONFIG=~/.local/state/ambit/local/kubeconfig kubectl get pods -A",
		RunE: func(c *cobra.Command, _ []string) error {
			state, err := filepath.Abs(s.state)
			if err != nil {
				return err
			}
			if _, err := s.client().List(c.Context(), kindNamed("nodes"), "", ""); err != nil {
				return err
			}
			if g.State = state; g.Kubeconfig == "" {
				g.Kubeconfig = filepath.Join(state, "kubeconfig")
			}
			return g.Serve(c.Context(), func(addr string) {
				fmt.Fprintf(s.env.Out, "Serving on https://%s\nexport KUBECONFIG=%s\n", addr, g.Kubeconfig)
			})
		},
	}
	c.Flags().IntVarP(&g.Port, "port", "p", 0, "port of 127.0.0.1; 0 takes any that is free")
	c.Flags().StringVar(&g.Kubeconfig, "kubeconfig", "", "file to write (default kubeconfig in the state directory)")
	return c
}
