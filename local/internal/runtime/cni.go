package runtime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/ambit-mesh/ambit/local/internal/network"
	"github.com/ambit-mesh/ambit/local/internal/runtime/caps"
	"github.com/ambit-mesh/ambit/local/internal/runtime/view"
)

// attach runs the node's list of CNI plugins for a pod. If one fails, the pod is detached again.
func (r *Runtime) attach(ctx context.Context, p *Pod) ([]netip.Addr, error) {
	cni, list, err := r.cni(p.conf.Node)
	if err != nil {
		return nil, err
	}
	res, err := cni.AddNetworkList(ctx, list, p.cniArgs())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("set up the network of the pod: %w", err), r.detach(context.WithoutCancel(ctx), p))
	}
	result, err := current.NewResultFromResult(res)
	if err != nil {
		return nil, fmt.Errorf("read the network plugins' result: %w", err)
	}
	var addrs []netip.Addr
	for _, ip := range result.IPs {
		if a, ok := netip.AddrFromSlice(ip.Address.IP); ok {
			addrs = append(addrs, a.Unmap())
		}
	}
	if len(addrs) == 0 {
		return nil, errors.Join(errors.New("the network plugins gave the pod no address"), r.detach(context.WithoutCancel(ctx), p))
	}
	return addrs, nil
}

// detach undoes attach; doing it twice, or after half an attach, is no error.
func (r *Runtime) detach(ctx context.Context, p *Pod) error {
	cni, list, err := r.cni(p.conf.Node)
	if err != nil {
		return err
	}
	if err := cni.DelNetworkList(ctx, list, p.cniArgs()); err != nil {
		return fmt.Errorf("take down the network of the pod: %w", err)
	}
	return nil
}

// cni reads the node's network configuration, the first by name as every runtime does.
func (r *Runtime) cni(n *network.Node) (libcni.CNI, *libcni.NetworkConfigList, error) {
	dir := r.nodeDir(n)
	files, err := libcni.ConfFiles(filepath.Join(dir, "etc/cni/net.d"), []string{".conflist"})
	if err != nil {
		return nil, nil, fmt.Errorf("find the network configuration of node %s: %w", n.Name, err)
	}
	if len(files) == 0 {
		return nil, nil, fmt.Errorf("node %s has no network configuration in /etc/cni/net.d", n.Name)
	}
	list, err := libcni.ConfListFromFile(files[0])
	if err != nil {
		return nil, nil, fmt.Errorf("read the network configuration of node %s: %w", n.Name, err)
	}
	cache := filepath.Join(dir, "var/lib/cni")
	return libcni.NewCNIConfigWithCacheDir([]string{"/opt/cni/bin"}, cache, &plugins{r: r, node: n}), list, nil
}

// plugins runs plugins as processes of a node: in its network namespace, seeing its directories.
type plugins struct {
	version.PluginDecoder
	r    *Runtime
	node *network.Node
}

func (p *plugins) FindInPath(plugin string, _ []string) (string, error) {
	if plugin == "" || filepath.Base(plugin) != plugin {
		return "", fmt.Errorf("%q is no plugin's name", plugin)
	}
	// Lstat: a link may lead to where only the node's view has something.
	if _, err := os.Lstat(filepath.Join(p.r.nodeDir(p.node), "opt/cni/bin", plugin)); err != nil {
		return "", fmt.Errorf("node %s has no plugin %s in /opt/cni/bin", p.node.Name, plugin)
	}
	return filepath.Join("/opt/cni/bin", plugin), nil
}

func (p *plugins) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	var out, errOut bytes.Buffer
	cmd, err := view.Start(view.Process{
		Spec: view.Spec{
			Mounts: p.r.nodeMounts(p.node), Hidden: p.r.hidden(), Caps: caps.All, Argv: []string{path}, Env: append(environ, "PATH="+DefaultPath),
		},
		NS: p.node.NS, OwnPIDs: true, Stdin: bytes.NewReader(stdin), Stdout: &out, Stderr: &errOut,
	})
	if err != nil {
		return nil, fmt.Errorf("run plugin %s: %w", filepath.Base(path), err)
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() }) // gone already is fine
	err = cmd.Wait()
	stop()
	if errOut.Len() > 0 {
		p.r.conf.Log.Debug("plugin said", "node", p.node.Name, "plugin", filepath.Base(path), "stderr", errOut.String())
	}
	if err == nil {
		return out.Bytes(), nil
	}
	if ctx.Err() != nil {
		return nil, contextDone(ctx, "run plugin "+filepath.Base(path))
	}
	if _, ok := errors.AsType[*exec.ExitError](err); !ok {
		return nil, fmt.Errorf("run plugin %s: %w", filepath.Base(path), err)
	}
	said := types.Error{}
	if json.Unmarshal(out.Bytes(), &said) == nil && said.Msg != "" {
		return nil, &said
	}
	return nil, fmt.Errorf("plugin %s failed (%w): %s", filepath.Base(path), err, strings.TrimSpace(errOut.String()+out.String()))
}

// cniArgs is what containerd tells plugins of a pod.
func (p *Pod) cniArgs() *libcni.RuntimeConf {
	ips := make([]string, len(p.taken))
	for i, a := range p.taken {
		ips[i] = netip.PrefixFrom(a, p.conf.Node.Pods[i].Bits()).String()
	}
	return &libcni.RuntimeConf{
		ContainerID: p.ID, NetNS: filepath.Join("/var/run/netns", p.nsName()), IfName: "eth0",
		Args: [][2]string{
			{"IgnoreUnknown", "1"},
			{"K8S_POD_NAMESPACE", p.conf.Namespace},
			{"K8S_POD_NAME", p.conf.Name},
			{"K8S_POD_INFRA_CONTAINER_ID", p.ID},
			{"K8S_POD_UID", p.conf.UID},
		},
		CapabilityArgs: map[string]any{"ips": ips},
	}
}
