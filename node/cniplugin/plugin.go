package cniplugin

import (
	"encoding/json"
	"errors"
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

// add tells the agent and passes the result before on. The agent decides whether the pod is of the mesh. When it cannot be
// asked, only a pod that is surely outside the mesh starts; the others fail the command, and the runtime tries again: no pod of
// the mesh ever starts uncaptured.
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
		l := newLogger(c)
		err = admit(c, p, body, l)
		l.close()
		if err != nil {
			return err
		}
	}
	return types.PrintResult(prev, c.CNIVersion)
}

// How long one call tries with EnableDetectionRetry, Istio's figures.
const (
	detectionTries = 30
	detectionPause = time.Second
)

// admit returns nil when the pod may start.
func admit(c *Conf, p pod, body []byte, l *logger) error {
	tries := 1
	if c.EnableDetectionRetry {
		tries = detectionTries
	}
	for i := 1; ; i++ {
		err := ask(c, p, body, l)
		if err == nil {
			return nil
		}
		var refused *refusal
		if i >= tries || errors.As(err, &refused) {
			l.log("error", "pod must wait", "pod", p.String(), "error", err.Error())
			return err
		}
		l.log("warn", "pod must wait, will try again", "pod", p.String(), "error", err.Error())
		time.Sleep(detectionPause)
	}
}

// ask asks the agent, and without one the API server.
func ask(c *Conf, p pod, body []byte, l *logger) error {
	err := post(filepath.Join(c.RunDir, EventSocket), "/cmdadd", body, time.Now().Add(timeout))
	if err == nil {
		l.log("debug", "pod may start", "pod", p.String())
		return nil
	}
	waits := fmt.Errorf("pod %s waits for the mesh's node agent: %w", p, err)
	var refused *refusal
	if errors.As(err, &refused) {
		return waits
	}
	verdict, jerr := judge(c, p, time.Now().Add(timeout))
	switch {
	case jerr != nil:
		return fmt.Errorf("%w; whether the pod is of the mesh is not known: %w", waits, jerr)
	case verdict.In:
		return fmt.Errorf("%w; it is of the mesh: %s", waits, verdict.Why)
	}
	l.log("warn", "pod outside the mesh starts without the node agent", "pod", p.String(), "why", verdict.Why, "error", err.Error())
	return nil
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
