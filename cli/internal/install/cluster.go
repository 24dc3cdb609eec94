package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/ambit-mesh/ambit/cli/internal/kube"
)

// Cluster is the API server that an installation is for.
type Cluster struct {
	// Context is the kubeconfig's, for words.
	Context string
	// Server is the API server's address.
	Server string

	config *rest.Config
	any    dynamic.Interface
	http   *http.Client
}

// ErrNoCluster is that no kubeconfig names a cluster.
var ErrNoCluster = errors.New("no Kubernetes cluster is named: give --kubeconfig or set KUBECONFIG (for a mesh on this machine alone: ambit local up)")

// Connect reads a kubeconfig as kubectl does: the file given, or $KUBECONFIG, or the user's, or that of the pod we are in.
func Connect(file, contextName string) (*Cluster, error) {
	c, err := kube.Load(file, contextName)
	switch {
	case errors.Is(err, kube.ErrNone):
		return nil, ErrNoCluster
	case err != nil:
		return nil, err
	case c.LocalState != "":
		return nil, fmt.Errorf("%s leads to the local cluster in %s, which `ambit local up` gives its mesh; --context names another cluster", c.From, c.LocalState)
	}
	return New(c.REST, c.Context)
}

// New talks to an API server.
func New(conf *rest.Config, name string) (*Cluster, error) {
	conf = rest.CopyConfig(conf)
	conf.QPS, conf.Burst = 200, 400 // ours are a few dozen objects, once
	conf.UserAgent = manager
	if conf.Timeout == 0 {
		conf.Timeout = time.Minute
	}
	conf.WarningHandler = rest.NoWarnings{}
	client, err := rest.HTTPClientFor(conf)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", conf.Host, err)
	}
	any, err := dynamic.NewForConfigAndClient(conf, client)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", conf.Host, err)
	}
	return &Cluster{Context: name, Server: conf.Host, config: conf, any: any, http: client}, nil
}

func (c *Cluster) of(k kind, namespace string) dynamic.ResourceInterface {
	if k.cluster {
		return c.any.Resource(k.resource())
	}
	return c.any.Resource(k.resource()).Namespace(namespace)
}

func (c *Cluster) get(ctx context.Context, k kind, namespace, name string) (*Object, error) {
	o, err := c.of(k, namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("get %s %s: %w", k.name, name, err)
	}
	return o, nil
}

// list lists objects; none where the API server does not have the kind.
func (c *Cluster) list(ctx context.Context, k kind, namespace, selector string) ([]Object, error) {
	l, err := c.of(k, namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", k.plural, err)
	}
	return l.Items, nil
}

func podKind() kind  { return kind{"", "v1", "Pod", "pods", false} }
func nodeKind() kind { return kind{"", "v1", "Node", "nodes", true} }

// read gets a path of the API server as it is, such as a log.
func (c *Cluster) read(ctx context.Context, path string, query url.Values) ([]byte, error) {
	u, _, err := rest.DefaultServerUrlFor(c.config)
	if err != nil {
		return nil, err
	}
	u.Path = strings.TrimSuffix(u.Path, "/") + path
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(b)))
	}
	return b, nil
}
