package cniplugin

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
)

// timeout of a call to the agent, Istio's.
const timeout = 5 * time.Second

// Main answers one CNI command, from environment and standard input to standard output, and exits.
func Main(about string) {
	skel.PluginMainFuncs(skel.CNIFuncs{Add: add, Del: del, Check: check}, version.All, about)
}

// Event is what the agent is told of a new pod, Istio's wire and the pod's UID.
type Event struct {
	Netns        string
	PodName      string
	PodNamespace string
	PodUID       string `json:",omitempty"`
	IPs          []IPConfig
}

// IPConfig is one address of a pod.
type IPConfig struct {
	Interface *int      `json:",omitempty"`
	Address   IPAddress `json:"Address"`
	Gateway   string    `json:",omitempty"`
}

// IPAddress is an address and its mask.
type IPAddress struct {
	IP   string
	Mask []byte
}

// add tells the agent and passes the result before on. The agent decides whether the pod is of the mesh; that it cannot
// be asked fails the command: the runtime tries again, and no pod of the mesh ever starts uncaptured.
func add(args *skel.CmdArgs) error {
	c, prev, err := parseConf(args.StdinData)
	if err != nil {
		return err
	}
	if prev == nil {
		return fmt.Errorf("this plugin must come after others: there is no result before it")
	}
	p := parseArgs(args.Args)
	if c.AmbientEnabled && p.name != "" && p.namespace != "" && !c.excludes(p.namespace) && p.namespace != c.PodNamespace {
		body, err := json.Marshal(event(args.Netns, p, prev))
		if err != nil {
			return fmt.Errorf("tell the node agent: %w", err)
		}
		if err := post(filepath.Join(c.RunDir, EventSocket), "/cmdadd", body, time.Now().Add(timeout)); err != nil {
			return fmt.Errorf("pod %s/%s waits for the mesh's node agent: %w", p.namespace, p.name, err)
		}
	}
	return types.PrintResult(prev, c.CNIVersion)
}

func event(netns string, p pod, prev *current.Result) Event {
	e := Event{Netns: netns, PodName: p.name, PodNamespace: p.namespace, PodUID: p.uid}
	for _, ip := range prev.IPs {
		i := IPConfig{Interface: ip.Interface, Address: IPAddress{IP: ip.Address.IP.String(), Mask: ip.Address.Mask}}
		if ip.Gateway != nil {
			i.Gateway = ip.Gateway.String()
		}
		e.IPs = append(e.IPs, i)
	}
	return e
}

// del has nothing to undo: the rules go with the pod's namespace, and the agent sees the pod go. Not even a configuration
// that cannot be read may keep a pod from ending.
func del(*skel.CmdArgs) error { return nil }

// check agrees with any configuration that it can read.
func check(args *skel.CmdArgs) error {
	_, _, err := parseConf(args.StdinData)
	return err
}
