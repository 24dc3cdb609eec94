package cniplugin

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/node/internal/enroll"
	"github.com/ambit-mesh/ambit/node/internal/objects"
)

// maxObject is more than the API server stores of one object.
const maxObject = 4 << 20

// Access is a kubeconfig file with what is needed of it; in JSON, which kubectl reads as well.
type Access struct {
	APIVersion string          `json:"apiVersion"`
	Kind       string          `json:"kind"`
	Clusters   []accessCluster `json:"clusters"`
	Users      []accessUser    `json:"users"`
	Contexts   []accessContext `json:"contexts"`
	Current    string          `json:"current-context"`
}

type accessCluster struct {
	Name    string `json:"name"`
	Cluster struct {
		Server string `json:"server"`
		CA     []byte `json:"certificate-authority-data,omitempty"`
	} `json:"cluster"`
}

type accessUser struct {
	Name string `json:"name"`
	User struct {
		Token string `json:"token"`
	} `json:"user"`
}

type accessContext struct {
	Name    string            `json:"name"`
	Context map[string]string `json:"context"`
}

// NewAccess is a kubeconfig for one server.
func NewAccess(server string, ca []byte, token string) Access {
	const name = "istio-cni"
	a := Access{
		APIVersion: "v1", Kind: "Config", Clusters: []accessCluster{{Name: name}}, Users: []accessUser{{Name: name}},
		Contexts: []accessContext{{Name: name, Context: map[string]string{"cluster": name, "user": name}}}, Current: name,
	}
	a.Clusters[0].Cluster.Server, a.Clusters[0].Cluster.CA, a.Users[0].User.Token = server, ca, token
	return a
}

// judge says whether a pod is of the mesh when the agent cannot be asked: from the API server, as the agent would, for
// a file that an agent left could not know this pod's own labels. Any doubt is an error.
func judge(c *Conf, p pod, deadline time.Time) (enroll.Verdict, error) {
	a, err := readAccess(filepath.Join(c.RunDir, Kubeconfig))
	if err != nil {
		return enroll.Verdict{}, err
	}
	var o objects.PodJSON
	ns := url.PathEscape(p.namespace)
	if err := a.get("/api/v1/namespaces/"+ns+"/pods/"+url.PathEscape(p.name), deadline, &o); err != nil {
		return enroll.Verdict{}, err
	}
	if got := o.Pod(); got.Namespace != p.namespace || got.Name != p.name || !got.Is(p.uid) {
		return enroll.Verdict{}, fmt.Errorf("the API server has another pod of that name, with UID %q", got.UID)
	}
	var n objects.NamespaceJSON
	if err := a.get("/api/v1/namespaces/"+ns, deadline, &n); err != nil {
		return enroll.Verdict{}, err
	}
	if n.Metadata.Name != p.namespace {
		return enroll.Verdict{}, fmt.Errorf("the API server gives namespace %q for %q", n.Metadata.Name, p.namespace)
	}
	return c.rules.Decide(o.Pod(), n.Namespace()), nil
}

// server is an API server and how to speak to it.
type server struct {
	addr, host, token string
	tls               *tls.Config
}

func readAccess(path string) (*server, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("how to ask the API server: %w", err)
	}
	s, err := parseAccess(b)
	if err != nil {
		return nil, fmt.Errorf("how to ask the API server: %s: %w", path, err)
	}
	return s, nil
}

func parseAccess(b []byte) (*server, error) {
	var a Access
	if err := json.Unmarshal(b, &a); err != nil {
		return nil, err
	}
	if len(a.Clusters) != 1 || len(a.Users) != 1 {
		return nil, errors.New("it must name one cluster and one user")
	}
	u, err := url.Parse(a.Clusters[0].Cluster.Server)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" { // the token must not be readable on the way
		return nil, errors.New("its server is no URL https://host:port")
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	token := a.Users[0].User.Token
	if strings.ContainsFunc(token+u.Host, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return nil, errors.New("its token or server holds characters that cannot be")
	}
	s := &server{addr: net.JoinHostPort(u.Hostname(), port), host: u.Host, token: token}
	s.tls = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: u.Hostname(), NextProtos: []string{"http/1.1"}}
	if ca := a.Clusters[0].Cluster.CA; len(ca) > 0 {
		s.tls.RootCAs = x509.NewCertPool()
		if !s.tls.RootCAs.AppendCertsFromPEM(ca) {
			return nil, errors.New("its certificate-authority-data holds no certificate")
		}
	}
	return s, nil
}

// get reads one object. HTTP/1.0 keeps the answer from coming in chunks.
func (s *server) get(path string, deadline time.Time, into any) error {
	d := &net.Dialer{Deadline: deadline}
	conn, err := tls.DialWithDialer(d, "tcp", s.addr, s.tls)
	if err != nil {
		return fmt.Errorf("ask the API server: %w", err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	head := "GET " + path + " HTTP/1.0\r\nHost: " + s.host + "\r\nAccept: application/json\r\nAuthorization: Bearer " + s.token + "\r\nConnection: close\r\n"
	status, body, err := exchange(conn, head, nil, maxObject)
	if err != nil {
		return fmt.Errorf("ask the API server: %w", err)
	}
	if status == 401 {
		return fmt.Errorf("the token that the agent left is no longer valid: the API server answers 401: %s", reason(body))
	}
	if status != 200 {
		return fmt.Errorf("the API server answers %d: %s", status, reason(body))
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("the API server's answer is not understood: %w", err)
	}
	return nil
}
