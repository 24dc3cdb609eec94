// Package kubeapi runs a real Kubernetes API server and its etcd for tests.
package kubeapi

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
)

// patience is how long the programs may take to start: they share two cores with everything else.
const patience = 2 * time.Minute

const issuer = "https://kubernetes.default.svc.cluster.local"

// Server is an API server with its etcd. It has no controllers: nothing makes service accounts, end points or the
// consequences of a deletion but the test.
type Server struct {
	// Config is an administrator's. Give each client a copy.
	Config *rest.Config
	// Kubeconfig is a file that says the same.
	Kubeconfig string
	// Log is the API server's log.
	Log string

	t             testing.TB
	dir, bin      string
	pki           pki
	client        dynamic.Interface
	port, etcd    int
	server, store *process
}

// Bin is the directory of the programs: $AMBIENT_CLUSTER_BIN, or where test/cluster/build puts them.
func Bin() string {
	if dir := os.Getenv("AMBIENT_CLUSTER_BIN"); dir != "" {
		return dir
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".cache", "ambient-cluster", "bin")
}

// Start runs a new API server until the test ends. Where its programs are missing the test is skipped.
func Start(t testing.TB) *Server {
	t.Helper()
	bin := Bin()
	for _, name := range []string{"etcd", "kube-apiserver"} {
		if _, err := os.Stat(filepath.Join(bin, name)); err != nil {
			t.Skipf("no %s in %s; test/cluster/build makes it, AMBIENT_CLUSTER_BIN names another place", name, bin)
		}
	}
	dir := t.TempDir()
	s := &Server{t: t, dir: dir, bin: bin, Log: filepath.Join(dir, "kube-apiserver.log")}
	ports := freePorts(t, 3)
	s.etcd, s.port = ports[0], ports[1]
	var err error
	if s.pki, err = newPKI(dir); err != nil {
		t.Fatal(err)
	}
	etcdURL, peerURL := fmt.Sprintf("http://127.0.0.1:%d", s.etcd), fmt.Sprintf("http://127.0.0.1:%d", ports[2])
	s.store = run(t, filepath.Join(dir, "etcd.log"), filepath.Join(bin, "etcd"), "--data-dir="+filepath.Join(dir, "etcd"), "--log-level=warn",
		"--unsafe-no-fsync", "--listen-client-urls="+etcdURL, "--advertise-client-urls="+etcdURL,
		"--listen-peer-urls="+peerURL, "--initial-advertise-peer-urls="+peerURL, "--initial-cluster=default="+peerURL)
	t.Cleanup(s.store.kill)
	s.Config = &rest.Config{
		Host: "https://127.0.0.1:" + strconv.Itoa(s.port), QPS: -1,
		TLSClientConfig: rest.TLSClientConfig{CAData: s.pki.ca, CertData: s.pki.admin, KeyData: s.pki.adminKey},
	}
	if s.Kubeconfig, err = s.pki.kubeconfig(dir, s.Config.Host); err != nil {
		t.Fatal(err)
	}
	s.Restart()
	t.Cleanup(s.Stop)
	if s.client, err = dynamic.NewForConfig(rest.CopyConfig(s.Config)); err != nil {
		t.Fatal(err)
	}
	return s
}

// Stop kills the API server. What is in etcd stays.
func (s *Server) Stop() {
	if s.server != nil {
		s.server.kill()
		s.server = nil
	}
}

// Restart starts the API server again at its old address, and waits until it answers.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	s.server = run(s.t, s.Log, filepath.Join(s.bin, "kube-apiserver"),
		"--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none",
		"--secure-port="+strconv.Itoa(s.port), fmt.Sprintf("--etcd-servers=http://127.0.0.1:%d", s.etcd),
		"--allow-privileged", "--authorization-mode=Node,RBAC", "--service-cluster-ip-range=10.96.0.0/16",
		// Without controllers there are no accounts that pods could be given.
		"--disable-admission-plugins=ServiceAccount",
		"--client-ca-file="+s.pki.path("ca.crt"), "--tls-cert-file="+s.pki.path("server.crt"), "--tls-private-key-file="+s.pki.path("server.key"),
		"--service-account-issuer="+issuer,
		"--service-account-key-file="+s.pki.path("accounts.key"), "--service-account-signing-key-file="+s.pki.path("accounts.key"))
	s.waitReady()
}

func (s *Server) waitReady() {
	s.t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(s.pki.ca)
	cert, err := tls.X509KeyPair(s.pki.admin, s.pki.adminKey)
	if err != nil {
		s.t.Fatal(err)
	}
	c := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{cert}}, DisableKeepAlives: true,
	}}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	last := errors.New("it was not asked")
	for ctx.Err() == nil {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Config.Host+"/readyz", nil)
		if err != nil {
			s.t.Fatal(err)
		}
		res, err := c.Do(req)
		if err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return
			}
			err = errors.New(res.Status)
		}
		last = err
		select {
		case <-s.server.done:
			s.t.Fatalf("the API server has ended: %v\n%s", s.server.err, tail(s.Log))
		case <-time.After(50 * time.Millisecond):
		}
	}
	s.t.Fatalf("the API server is not ready after %s: %v\n%s", patience, last, tail(s.Log))
}

// process is a program that runs until it is killed.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

func run(t testing.TB, log, path string, args ...string) *process {
	t.Helper()
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.Command(path, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	// A test that is killed takes them along.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		// The signal comes when the thread ends that started the program: it is this one, which waits.
		runtime.LockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
			close(p.done)
		}
		out.Close()
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *process) kill() {
	if err := p.cmd.Process.Kill(); err == nil {
		<-p.done
	}
}

// freePorts are ports that nobody listens on now.
func freePorts(t testing.TB, n int) (ports []int) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

func tail(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-4000):])
}
